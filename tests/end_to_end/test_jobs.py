"""The batch jobs of a server that is killed, and started again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.codecs.test_form_upload import form_of, part
from tests.end_to_end.processes import Process, started, until, write_model

SOURCE = """
import time

class Model:
    def predict(self, inputs):
        time.sleep(0.005)
        return {"y": inputs["x"] * 2}
"""
ROWS = 800
CONFIG = """
model_repository: models
defaults: {max_batch_size: 4, bulk_after_ms: 50}
jobs: {inputs: [in], outputs: [out], at_once: 2, uploads: {}}
"""


PREDICT = "/models/double/predict"


def asked(server: Process, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(server.address + path, data=data), timeout=30) as answer:
        return json.loads(answer.read())


def has_rows(journal: Path) -> bool:
    return journal.exists() and json.loads(journal.read_text())["rows"] > 0


def uploaded(server: Process) -> str:
    """Upload a file of requests; return its id."""
    bodies = [{"inputs": {"x": [[row, 1, 2, 3]]}} for row in range(ROWS)]
    requests = [
        {"custom_id": str(row), "method": "POST", "url": PREDICT, "body": body}
        for row, body in enumerate(bodies)
    ]
    text = "".join(json.dumps(request) + "\n" for request in requests).encode()
    form = form_of(part("purpose", b"batch"), part("file", text, "a.jsonl"))
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    request = Request(f"{server.address}/v1/files", data=form, headers=headers)
    with urlopen(request, timeout=30) as answer:
        id: str = json.loads(answer.read())["id"]
        return id


@pytest.mark.long
def test_jobs_and_batches_go_on_after_the_server_was_killed(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "double", SOURCE)
    (tmp_path / "config.yaml").write_text(CONFIG)
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    rows = "".join(f"[{row}, 1, 2, 3]\n" for row in range(ROWS))
    (tmp_path / "in/rows.jsonl").write_text(rows)
    wanted = {
        "model": "double",
        "input": str(tmp_path / "in/rows.jsonl"),
        "output": str(tmp_path / "out/rows.jsonl"),
    }
    serve = ("-m", "batcher.app.cli", "serve", "-c", str(tmp_path / "config.yaml"))
    with started(tmp_path, "--port", "0", command=serve) as server:
        id = asked(server, "/jobs", wanted)["id"]
        wish = {"endpoint": PREDICT, "completion_window": "24h", "input_file_id": uploaded(server)}
        batch = asked(server, "/v1/batches", wish)["id"]
        outputs = tmp_path / "jobs/outputs"
        journals = [
            tmp_path / "out/rows.jsonl.journal",
            outputs / f"{batch}.openai.jsonl.journal",
        ]
        until(lambda: all(map(has_rows, journals)), 60)
        assert "running" in server.get("/")
        server.signal(signal.SIGKILL)
        server.wait(20)
    assert not (tmp_path / "out/rows.jsonl").exists()
    with started(tmp_path, "--port", "0", command=serve) as server:
        until(lambda: asked(server, f"/jobs/{id}")["state"] == "done", 60)
        assert asked(server, f"/jobs/{id}")["rows"] == ROWS
        until(lambda: asked(server, f"/v1/batches/{batch}")["status"] == "completed", 60)
        output = asked(server, f"/v1/batches/{batch}")["output_file_id"]
        answers = server.get(f"/v1/files/{output}/content").splitlines()
    lines = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    found = [json.loads(line)["y"] for line in lines]
    expected = [[2.0 * row, 2.0, 4.0, 6.0] for row in range(ROWS)]
    assert found == expected
    read = [json.loads(line) for line in answers]
    assert [line["custom_id"] for line in read] == [str(row) for row in range(ROWS)]
    assert [line["response"]["body"]["outputs"]["y"] for line in read] == [[y] for y in expected]
