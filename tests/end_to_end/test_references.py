"""A server that fetches inputs from a web server of this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.codecs.formats.test_references import ROWS, npy
from tests.end_to_end.processes import Process, run, started, until, write_model

SOURCE = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2}
"""


CONTENTS = {
    "/in/rows.npy": npy(ROWS),
    "/in/row.npy": npy(ROWS[1]),
    "/in/long.json": b"[" + b" " * (1 << 18) + json.dumps(ROWS.tolist()).encode()[1:],
}


class Files(ThreadingHTTPServer):
    """A web server with two files, one of which never comes.

    Attributes:
        asked: the paths and the tags that were asked for.
        left: set when the client of the file that never comes has left.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.left = threading.Event()
        super().__init__(("127.0.0.1", 0), FileHandler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class FileHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Files

    def do_GET(self) -> None:
        tag = self.headers.get("If-None-Match")
        self.server.asked.append((self.path, tag))
        if self.path == "/in/silent.npy":
            self.connection.settimeout(30)
            if self.connection.recv(1) == b"":
                self.server.left.set()
            return
        if self.path == "/in/moved.npy":
            self.send_response(302)
            self.send_header("Location", "/out/rows.npy")
            self.end_headers()
            return
        found = self.path in CONTENTS
        self.send_response(404 if not found else 304 if tag == '"1"' else 200)
        content = CONTENTS[self.path] if found and tag != '"1"' else b""
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    with Files() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.fixture(scope="module")
def server(files: Files, folder: Path) -> Iterator[Process]:
    write_model(folder / "models", "double", SOURCE)
    (folder / "config.yaml").write_text(
        f"model_repository: models\nprivate_input_sources: ['{files.address}/in/']\n"
        "input_sources: ['http://localhost:1/', 'https://localhost/']\ninput_cache_ttl_s: 0\n"
        "jobs: {inputs: [rows], outputs: [out]}\n"
    )
    for name in ("rows", "out"):
        (folder / name).mkdir()
    serve = ("-m", "batcher.app.cli", "serve", "-c", str(folder / "config.yaml"))
    with started(folder, "--port", "0", command=serve) as process:
        yield process


def ask(server: Process, address: str, **headers: str) -> tuple[int, Any]:
    body = json.dumps({"inputs": {"x": {"ref": address}}}).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(
        f"{server.address}/predict", body, {"Content-Type": "application/json", **names}
    )
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as err:
        return err.code, json.loads(err.read())


def test_a_file_is_fetched_and_then_asked_for_by_its_tag(server: Process, files: Files) -> None:
    files.asked.clear()
    for _ in range(2):
        status, answer = ask(server, f"{files.address}/in/rows.npy")
        assert status == 200, answer
        assert np.array_equal(answer["outputs"]["y"], ROWS * 2)
    assert files.asked == [("/in/rows.npy", None), ("/in/rows.npy", '"1"')]


def test_a_long_text_is_read_in_another_process(server: Process, files: Files) -> None:
    status, answer = ask(server, f"{files.address}/in/long.json")
    assert status == 200, answer
    assert np.array_equal(answer["outputs"]["y"], ROWS * 2)


def test_lines_of_jobs_name_files_too(server: Process, files: Files, folder: Path) -> None:
    named = [f"{files.address}/in/{name}.npy" for name in ("row", "none", "row")]
    lines = [json.dumps({"ref": address}) for address in named]
    rows, config = folder / "rows" / "a.jsonl", folder / "config.yaml"
    rows.write_text("\n".join([*lines, "[1, 2, 3, 4]"]))
    outputs = [folder / "out" / f"{name}.jsonl" for name in ("server", "url", "alone")]
    wanted = {"model": "double", "input": str(rows), "output": str(outputs[0])}
    with urlopen(Request(f"{server.address}/jobs", json.dumps(wanted).encode())) as answer:
        job = json.loads(answer.read())["id"]
    for output, more in zip(outputs[1:], (["--url", server.address], []), strict=True):
        done = run("run", "double", str(rows), str(output), "-c", str(config), *more)
        assert done.returncode == 3, done.stderr
    until(lambda: json.loads(server.get(f"/jobs/{job}"))["state"] == "done", 60)
    right = {"y": (ROWS[1] * 2).tolist()}
    for output in outputs:
        found = [json.loads(line) for line in output.read_text().splitlines()]
        assert found == [right, None, right, {"y": [2.0, 4.0, 6.0, 8.0]}]
        (error,) = Path(f"{output}.errors.jsonl").read_text().splitlines()
        assert json.loads(error)["code"] == "input_missing"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/in/none.npy", 404, "input_missing"),
        ("/in/moved.npy", 502, "input_source_failed"),
        ("/out/rows.npy", 400, "invalid_input"),
        ("/in/../out/rows.npy", 400, "invalid_input"),
    ],
)
def test_other_places_are_refused(
    server: Process, files: Files, path: str, status: int, code: str
) -> None:
    found, answer = ask(server, f"{files.address}{path}")
    assert (found, answer["code"]) == (status, code), answer
    assert "/out/rows.npy" not in [path for path, _ in files.asked]


def test_a_name_that_leads_to_this_machine_is_refused(server: Process) -> None:
    status, answer = ask(server, "https://localhost/rows.npy")
    assert status == 400
    assert "a host with public addresses alone" in answer["error"]
    assert "127.0.0.1" not in answer["error"]


def test_a_deadline_ends_a_fetch(server: Process, files: Files) -> None:
    files.left.clear()
    status, answer = ask(server, f"{files.address}/in/silent.npy", X_Timeout_Ms="500")
    assert (status, answer["code"]) == (504, "deadline_exceeded")
    assert "was being fetched" in answer["error"]
    until(files.left.is_set, 30)


def test_a_client_that_leaves_ends_its_fetch(server: Process, files: Files) -> None:
    files.left.clear()
    files.asked.clear()
    body = json.dumps({"inputs": {"x": {"ref": f"{files.address}/in/silent.npy"}}}).encode()
    with server.connect() as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        until(lambda: bool(files.asked), 30)
    until(files.left.is_set, 30)
