"""What OpenAI's client makes of files and batches: `python openai_batch_calls.py ADDRESS`.

Runs in the client's own environment. Writes JSON of what each call returned, which
`test_openai_batches.py` compares.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import openai

ADDRESS = sys.argv[1]


def client_of(key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key=key, max_retries=0)


client, stranger = client_of("mine"), client_of("yours")


def line(custom_id: str, given: Any, model: str = "words", **more: Any) -> bytes:
    body = {"model": model, "input": given}
    request = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body}
    return json.dumps({**request, **more}).encode() + b"\n"


def upload(*lines: bytes) -> Any:
    content = BytesIO(b"".join(lines))
    return client.files.create(file=("mine.jsonl", content), purpose="batch")


def begin(file: Any, endpoint: Any = "/v1/embeddings", **more: Any) -> Any:
    create = client.batches.create
    return create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ended(batch: Any) -> Any:
    deadline = time.monotonic() + 60
    while batch.status not in ("completed", "failed", "cancelled"):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(id: str) -> Any:
    return [json.loads(each) for each in client.files.content(id).text.splitlines()]


def refused(call: Callable[[], object]) -> Any:
    try:
        call()
    except openai.APIStatusError as err:
        return [type(err).__name__, err.status_code, err.code]
    return "not refused"


found: dict[str, Any] = {}
file = upload(line("a", "four"), line("b", ["four", "three"]), line("c", "no!"), line("d", ""))
batch = begin(file, metadata={"night": "1"})
found["first"] = [batch.object, batch.completion_window, batch.metadata, batch.input_file_id]
done = ended(batch)
counts = done.request_counts
found["counts"] = [done.status, counts.total, counts.completed, counts.failed]
found["answers"] = [
    [
        each["custom_id"],
        each["response"]["status_code"],
        [item["embedding"] for item in each["response"]["body"]["data"]],
    ]
    for each in lines_of(done.output_file_id)
]
found["errors"] = [
    [each["custom_id"], each["response"]["status_code"], each["response"]["body"]["error"]["code"]]
    for each in lines_of(done.error_file_id)
]
found["file"] = client.files.retrieve(file.id).filename
found["times"] = done.created_at <= done.completed_at

wrong = ended(begin(upload(line("a", "x"), b"{no\n", line("a", "y"))))
found["faults"] = [wrong.status, [[each.line, each.code] for each in wrong.errors.data]]

slow = begin(upload(*[line(str(number), "x" * 64, "slow") for number in range(2000)]))
while slow.status == "validating":
    slow = client.batches.retrieve(slow.id)
began = time.monotonic()
client.batches.cancel(slow.id)
found["cancelled"] = [ended(slow).status, time.monotonic() - began < 5]

found["batches"] = [each.id for each in client.batches.list(limit=1)] == [
    slow.id,
    wrong.id,
    batch.id,
]
purposes = [each.purpose for each in client.files.list(limit=2)]
found["purposes"] = sorted(purposes)
found["strangers"] = [
    refused(lambda: stranger.files.retrieve(file.id)),
    refused(lambda: stranger.files.content(done.output_file_id)),
    refused(lambda: stranger.batches.cancel(batch.id)),
    len(list(stranger.files.list())),
]
found["deleted"] = client.files.delete(file.id).deleted
found["gone"] = refused(lambda: client.files.retrieve(file.id))
found["no file"] = refused(lambda: begin(file))
found["no endpoint"] = refused(lambda: begin(file, "/v1/responses"))
sys.stdout.write(json.dumps(found))
