"""Embeddings of as many texts as a call may have: read and written beside the loop."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

from tests.end_to_end.processes import started
from tests.support.embedders import embedder, vector

TEXTS = [f"{index} {'x' * (120 + index % 50)}" for index in range(2048)]


def test_all_texts_of_the_largest_call_are_answered_in_their_order(tmp_path: Path) -> None:
    embedder(tmp_path / "models")
    settings = (f"model_repository={tmp_path / 'models'}", "defaults.worker=process")
    wish = {"model": "words", "input": TEXTS, "encoding_format": "base64"}
    body = json.dumps(wish).encode()
    assert len(body) > 1 << 18
    with started(tmp_path, *(part for pair in settings for part in ("--set", pair))) as process:
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(f"{process.address}/v1/embeddings", body, headers)) as reply:
            answer = json.load(reply)
    found = [np.frombuffer(b64decode(each["embedding"]), "<f4") for each in answer["data"]]
    assert [each.tolist() for each in found] == [vector(text) for text in TEXTS]
    assert answer["usage"]["prompt_tokens"] == sum(len(text) + 1 for text in TEXTS)
