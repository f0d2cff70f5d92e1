"""SIGHUP under load: settings change, models are replaced, and no request notices.

No request notices SIGTERM under load either.
"""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.load import made_of, row_for, under_load
from tests.end_to_end.processes import Process, one_answer, started, until, write_model
from tests.end_to_end.test_listening import certify, launch, wait_ready
from tests.end_to_end.test_stopping import answers_of

DOUBLE = 'class Model:\n    def predict(self, inputs):\n        return {"y": inputs["x"] * 2}\n'
GATED = """
import time
from pathlib import Path

class Model:
    def predict(self, inputs):
        while Path({gate!r}).exists() and inputs["x"].any():
            time.sleep(0.01)
        return {{"y": inputs["x"] * 2}}
"""
EITHER = "port: 0\nload_at_start: [times]\ndefaults: {max_batch_size: 4}\n"
OTHER = (
    "port: 0\nmax_pipelined_requests: 8\nload_at_start: [times, more]\ndefaults: {max_batch_size: "
    "16}\n"
)


class Server:
    """A server that is configured by a file.

    Attributes:
        process: the server itself.
        outcomes: number of reloads by outcome.
    """

    def __init__(self, process: Process, path: Path) -> None:
        self.process = process
        self._path = path

    @property
    def reloads(self) -> float:
        """Number of reloads so far."""
        return self.process.metric("batcher_reloads_total")

    @property
    def output(self) -> str:
        """Everything that the server has written; twist writes its log to the standard output."""
        return self.process.errors + "\n".join(self.process.lines)

    def configure(self, text: str) -> None:
        """Replace the configuration file, in one step."""
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.replace(self._path)

    def reload(self, text: str) -> None:
        """Replace the configuration file, and wait for the reload."""
        self.configure(text)
        before = self.reloads
        self.process.signal(signal.SIGHUP)
        until(lambda: self.reloads > before)

    def held(self) -> tuple[int, int]:
        """Return the number of the server's threads and of its open files."""
        folder = Path(f"/proc/{self.process.pid}")
        return len(os.listdir(folder / "task")), len(os.listdir(folder / "fd"))


@pytest.fixture(params=["serve.py", "twist"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Run a server of two models, one of which is served."""
    for name in ("times", "more"):
        write_model(tmp_path / "models", name, DOUBLE)
    path = tmp_path / "config.yaml"
    path.write_text(EITHER)
    command = {
        "serve.py": ("serve.py",),
        "twist": ("-m", "twisted", "--log-format", "text", "batcher"),
    }[request.param]
    with started(tmp_path, command=(*command, "--config", str(path))) as process:
        yield Server(process, path)


def test_settings_and_models_change_under_load_and_every_request_is_answered_right(
    server: Server,
) -> None:
    with under_load(server.process, "times", 6) as clients:
        server.reload(OTHER)
        server.reload(EITHER)
        before = server.held()
        for _ in range(5):
            server.reload(OTHER)
            assert server.process.metric("batcher_config_last_reload_successful") == 1
            server.reload(EITHER)
        for text in (OTHER, EITHER) * 5:
            server.configure(text)
            server.process.signal(signal.SIGHUP)
        server.configure("port: [\n")
        server.process.signal(signal.SIGHUP)
        until(lambda: "config.yaml:2: not YAML" in server.output)
        assert server.process.metric("batcher_config_last_reload_successful") == 0
        server.reload(EITHER)
        answered = len(clients.answers)
        until(lambda: len(clients.answers) > answered + 10)
        until(lambda: all(now <= then for now, then in zip(server.held(), before, strict=True)))
    assert clients.broken == 0
    assert {answer.status for _, answer in clients.answers} == {200}
    assert all(made_of(answer) == 2 * value for value, answer in clients.answers)
    assert "Traceback" not in server.process.errors


def test_a_model_that_cannot_be_loaded_changes_nothing(server: Server, tmp_path: Path) -> None:
    with under_load(server.process, "times", 2) as clients:
        (tmp_path / "models/more/1/code.py").write_text(
            "raise OSError('the disk of the weights is gone')\n"
        )
        server.reload(OTHER)
        answered = len(clients.answers)
        until(lambda: len(clients.answers) > answered)
    assert "the disk of the weights is gone" in server.output
    assert clients.broken == 0
    assert {answer.status for _, answer in clients.answers} == {200}


def test_whatever_was_accepted_at_full_load_is_answered_right_when_it_is_stopped(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    write_model(tmp_path / "models", "gated", GATED.format(gate=str(gate)))
    settings = (
        "--set",
        f"model_repository={tmp_path / 'models'}",
        "--set",
        "defaults.max_batch_size=8",
    )
    with started(tmp_path, *settings) as process:
        kept, pipelined = ([process.connect() for _ in range(count)] for count in (40, 10))
        for connection in kept:
            connection.sendall(row_for("gated", 1))
        for connection in kept:
            assert made_of(one_answer(connection)) == 2
        gate.touch()
        for number, connection in enumerate(kept):
            connection.sendall(row_for("gated", number + 1))
        for connection in pipelined:
            connection.sendall(b"".join(row_for("gated", number + 1) for number in range(8)))
        with under_load(process, "gated", 8) as clients:
            rows = len(kept) + 8 * len(pipelined) + 8
            until(
                lambda: (
                    process.metric("batcher_in_flight_rows") + process.metric("batcher_queue_rows")
                    == rows
                )
            )
            process.signal(signal.SIGTERM)
            until(lambda: not process.listens())
            gate.unlink()
            for number, connection in enumerate(kept):
                with connection:
                    assert [(one.status, made_of(one)) for one in answers_of(connection)] == [
                        (200, 2 * (number + 1))
                    ]
            for connection in pipelined:
                with connection:
                    answers = [(one.status, made_of(one)) for one in answers_of(connection)]
                assert answers == [(200, 2 * (number + 1)) for number in range(8)]
            assert process.wait(10) == 0
        firsts = {value: answer for value, answer in clients.answers if answer.status == 200}
        assert len(clients.answers) >= 8, "what they had sent before the signal"
        assert all(made_of(answer) == 2 * value for value, answer in firsts.items())
        assert {answer.status for _, answer in clients.answers} <= {200, 503}
        assert "Traceback" not in process.errors


def shown_certificate(host: str, port: int) -> str:
    """Return the certificate that a server shows to a new client."""
    return ssl.get_server_certificate((host, port), timeout=10)


@pytest.mark.parametrize("kind", ["serve", "twist"])
def test_a_new_certificate_is_shown_after_a_reload_and_a_wrong_one_refused(
    tmp_path: Path, kind: str
) -> None:
    write_model(tmp_path / "models", "times", DOUBLE)
    certify(tmp_path, "server")
    with launch(tmp_path, kind, tls_certificate=tmp_path / "server.pem") as process:
        host, port = wait_ready(process).removeprefix("https://").split(":")
        where = host, int(port)
        assert shown_certificate(*where) == (tmp_path / "server.crt").read_text()
        certify(tmp_path, "server")
        process.signal(signal.SIGHUP)
        until(lambda: shown_certificate(*where) == (tmp_path / "server.crt").read_text())
        last = (tmp_path / "server.crt").read_text()
        (tmp_path / "server.pem").write_text(last)
        process.signal(signal.SIGHUP)
        until(
            lambda: (
                "tls_certificate: expected a certificate and its key"
                in process.errors + "\n".join(process.lines)
            )
        )
        assert shown_certificate(*where) == last
