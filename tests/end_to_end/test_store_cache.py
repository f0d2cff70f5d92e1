"""Two whole servers that fetch one version into one cache at the same time, from a web server."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.trials.repository import write_version
from tests.end_to_end.processes import Process, started, until
from tests.end_to_end.test_listening import certify

INDEX = "index.json"
WEIGHTS = "m/1/weights.bin"
WEIGHTS_BYTES = 3 << 20


class Site(ThreadingHTTPServer):
    """A web server of the files in a folder, with an index.

    Attributes:
        asked: names of files that were asked for.
        sent: bytes that were sent of the weights.
        may_send: whether the weights are sent; requests for them wait for it.
    """

    daemon_threads = True

    def __init__(self, folder: Path, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
        self.files = {name: path.read_bytes() for name, path in names.items()}
        listed = [
            {"name": name, "size": len(content), "sha256": sha256(content).hexdigest()}
            for name, content in self.files.items()
        ]
        self.files[INDEX] = json.dumps({"files": listed}).encode()
        self.asked: list[str] = []
        self.sent = 0
        self.may_send = Event()


class _Files(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        first, _, last = asked.partition("-")
        part = content[int(first or 0) : int(last or len(content) - 1) + 1]
        if name == WEIGHTS:
            assert self.server.may_send.wait(60)
            self.server.sent += len(part)
        self.send_response(206 if asked else 200)
        if asked:
            span = f"{first}-{int(first) + len(part) - 1}"
            self.send_header("Content-Range", f"bytes {span}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def site(folder: Path, certificate: Path) -> Iterator[Site]:
    served = Site(folder, certificate)
    thread = Thread(target=served.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield served
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


def answer(server: Process) -> list[float]:
    """Return what the model of `server` answers."""
    url, body = f"{server.address}/models/m/predict", np.full(4, 7, "<f4").tobytes()
    request = Request(url, body, {"Content-Type": "application/octet-stream"})
    with urlopen(request, timeout=30) as came:
        return [float(number) for number in np.frombuffer(came.read(), "<f4")]


def test_two_servers_fetch_a_version_once_and_both_serve_it(tmp_path: Path) -> None:
    write_version(tmp_path / "there", "m", 1, 5, weights=WEIGHTS_BYTES)
    certify(tmp_path, "site")
    with ExitStack() as stack:
        store = stack.enter_context(site(tmp_path / "there", tmp_path / "site.pem"))
        settings = (
            f"model_repository=https://127.0.0.1:{store.server_port}",
            f"store_cache={tmp_path / 'cache'}",
            f"state_folder={tmp_path}",
        )
        arguments = [part for pair in settings for part in ("--set", pair)]
        trusting = {"SSL_CERT_FILE": str(tmp_path / "site.crt")}

        def begun() -> Process:
            launched = started(tmp_path, *arguments, environment=trusting, ready=False)
            return stack.enter_context(launched)

        first = begun()
        until(lambda: WEIGHTS in store.asked, 60)
        store.asked.clear()
        servers = first, begun()
        until(lambda: INDEX in store.asked, 60)
        store.may_send.set()
        for server in servers:
            server.wait_ready()
        assert [answer(server)[:2] for server in servers] == [[7, 5], [7, 5]]
        assert store.sent == WEIGHTS_BYTES
        assert "Traceback" not in servers[0].errors + servers[1].errors
