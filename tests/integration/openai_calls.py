"""What OpenAI's client makes of a server: `python openai_calls.py ADDRESS`, in its environment.

Writes JSON of what each call returned, which `test_embeddings.py` compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import openai

ADDRESS = sys.argv[1]
client = openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key="none", max_retries=0)
create = client.embeddings.create


def vectors(**wish: Any) -> Any:
    answer = create(model="words", **wish)
    return [each.embedding for each in answer.data], answer.usage.prompt_tokens, answer.model


def refused(call: Callable[[], object]) -> Any:
    try:
        call()
    except openai.APIStatusError as err:
        return [type(err).__name__, err.status_code, err.code, err.param, err.type]
    return "not refused"


many = [f"text {index}" for index in range(2048)]
answered = create(model="words", input=many)
sys.stdout.write(
    json.dumps(
        {
            "text": vectors(input="four"),
            "texts": vectors(input=["four", "three"]),
            "floats": vectors(input="four", encoding_format="float"),
            "ids": vectors(input=[7, 8, 9]),
            "lists": vectors(input=[[7, 8, 9], [7]]),
            "short": vectors(input="four", dimensions=1, user="somebody"),
            "many": [each.embedding for each in answered.data],
            "many floats": vectors(input=many, encoding_format="float")[0],
            "indices": [each.index for each in answered.data] == list(range(2048)),
            "models": [model.id for model in client.models.list()],
            "model": client.models.retrieve("words").id,
            "no model": refused(lambda: create(model="gone", input="a")),
            "empty": refused(lambda: create(model="words", input="")),
            "empty list": refused(lambda: create(model="words", input=[])),
            "too many": refused(lambda: create(model="words", input=[*many, "one more"])),
            "too wide": refused(lambda: create(model="words", input="a", dimensions=99)),
            "loud": refused(lambda: create(model="words", input="a!")),
        }
    )
)
