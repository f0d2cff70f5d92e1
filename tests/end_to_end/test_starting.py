"""Starting: sources of settings, models that cannot be loaded, ports that are taken, and twist."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.end_to_end.processes import ROOT, Process, receive_all, run, started, until, write_model

GOOD = 'class Model:\n    def predict(self, inputs):\n        return {"y": inputs["x"] * 2}\n'
BROKEN = 'raise OSError("the disk of the weights is gone")\n'
ROW = np.ones(4, "<f4").tobytes()
TWIST = ("-m", "twisted", "--log-format", "text", "batcher", "--config")


def post(
    server: Process, target: str, body: bytes, content_type: str = "application/octet-stream"
) -> tuple[int, bytes]:
    """Return status and body of the answer."""
    try:
        with urlopen(
            Request(server.address + target, body, {"Content-Type": content_type}), timeout=30
        ) as answer:
            return answer.status, answer.read()
    except HTTPError as err:
        return err.code, err.read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder: `good` has a good model, `both` has a good and a broken model."""
    folder = tmp_path_factory.mktemp("starting")
    for repository in ("good", "both"):
        write_model(folder / repository, "good", GOOD)
    write_model(folder / "both", "broken", BROKEN)
    write_model(folder / "both", "undefined", GOOD)
    (folder / "both" / "undefined" / "1" / "model.yaml").write_text(
        "format: python\nclas: code:Model\n"
    )
    (folder / "lenient.yaml").write_text("model_repository: both\nstrict_start: false\nport: 0\n")
    (folder / "twist.yaml").write_text(f"model_repository: {ROOT / 'models'}\nport: 0\n")
    return folder


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[dict[str, Process]]:
    """Start all servers of this module at once: most of a start is waiting for imports."""
    environment = {
        "BATCHER_MODEL_REPOSITORY": str(folder / "good"),
        "BATCHER_DEFAULTS__MAX_QUEUE_ROWS": "3",
        "BATCHER_MAX_BODY_BYTES": "1KiB",
        "BATCHER_PORT": "1",
    }
    with ExitStack() as stack:
        serve = ("serve.py", "-c", str(folder / "lenient.yaml"))
        processes = {
            "environment": started(
                folder,
                "--access-log",
                "--set",
                "max_body_bytes=2KiB",
                environment=environment,
                ready=False,
            ),
            "lenient": started(folder, command=serve, ready=False),
            "twist": started(folder, command=(*TWIST, str(folder / "twist.yaml")), ready=False),
            "stopped": started(folder, command=(*TWIST, str(folder / "lenient.yaml")), ready=False),
        }
        running = {name: stack.enter_context(process) for name, process in processes.items()}
        for process in running.values():
            process.wait_ready()
        yield running


class TestSettings:
    def test_variables_lie_over_the_file_and_flags_over_the_variables(
        self, servers: dict[str, Process]
    ) -> None:
        server = servers["environment"]
        assert server.host_and_port[1] > 1, "--port 0 over BATCHER_PORT=1"
        assert post(server, "/models/good/predict", ROW)[0] == 200, (
            "the repository that the variable names"
        )
        assert post(server, "/predict", ROW * 4)[0] == 413, "more rows than the variable allows"
        assert b"2048" not in post(server, "/predict", ROW * 100)[1], (
            "more bytes than the variable allows, not than the flag"
        )
        status, body = post(server, "/predict", bytes(2049))
        assert status == 413
        assert b"2048" in body, "more bytes than the flag allows"

    def test_the_access_log_is_one_line_of_json_a_request_behind_the_one_ready_line(
        self, servers: dict[str, Process]
    ) -> None:
        server = servers["environment"]
        assert post(server, "/predict?logged", ROW)[0] == 200
        until(lambda: any('"POST"' in line and "/predict" in line for line in server.lines))
        ready, *logged = server.lines
        assert "is ready on http://127.0.0.1:" in ready
        assert all(json.loads(line)["status"] for line in logged)


class TestBrokenModels:
    def test_a_broken_model_answers_503_while_others_serve_and_the_log_has_its_reason(
        self, servers: dict[str, Process]
    ) -> None:
        server = servers["lenient"]
        status, body = post(server, "/models/broken/predict", ROW)
        assert status == 503
        error = json.loads(body)["error"]
        assert "the disk of the weights is gone" not in error
        (reference,) = re.findall(r"request ([0-9a-f]{16})\b", error)
        assert post(server, "/models/good/predict", ROW) == (200, (np.ones(4, "<f4") * 2).tobytes())
        told = f"request {reference}: model broken/1 is not ready: failed: "
        until(lambda: told in server.errors)
        assert "the disk of the weights is gone" in server.errors.partition(told)[2]

    def test_a_model_whose_definition_is_wrong_answers_503_and_the_log_has_its_reason(
        self, servers: dict[str, Process]
    ) -> None:
        server = servers["lenient"]
        status, body = post(server, "/models/undefined/predict", ROW)
        assert status == 503
        assert "class" not in json.loads(body)["error"]
        assert "class" in server.errors, "it names the setting that was meant"

    def test_readiness_names_what_is_broken_and_the_pages_still_come(
        self, servers: dict[str, Process]
    ) -> None:
        server = servers["lenient"]
        with pytest.raises(HTTPError) as refused:
            server.get("/readyz")
        document = json.loads(refused.value.read())
        assert set(document["waiting_for"]) == {"broken/1", "undefined/1"}
        assert document["waiting_for"]["broken/1"] == "failed"
        assert server.get("/livez") == '{"live":true}'
        assert "failed" in server.get("/")
        assert "/predict" in server.get("/openapi.json")
        assert "batcher_connections" in server.get("/metrics")

    def test_a_strict_start_ends_with_status_1_and_the_reason(self, folder: Path) -> None:
        settings = (
            f"model_repository={folder / 'both'}",
            f"models.undefined.path={folder / 'good' / 'good'}",
        )
        with started(
            folder, *(part for setting in settings for part in ("--set", setting)), ready=False
        ) as server:
            assert server.wait(60) == 1
            assert "the disk of the weights is gone" in server.errors
            assert server.errors.count("the disk of the weights is gone") == 1
            assert "cannot start" in server.errors.splitlines()[-1]
            assert "Traceback" not in server.errors
            assert server.lines == []


class TestPort:
    def test_a_port_that_is_taken_is_a_clear_message_and_status_1(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            arguments = ("--set", f"model_repository={folder / 'good'}")
            command = ("serve.py", "--port", str(port))
            with started(folder, *arguments, command=command, ready=False) as server:
                assert server.wait(60) == 1
                errors = server.errors
                assert "cannot start" in errors
                assert str(port) in errors
                assert "in use" in errors.lower()
                assert "Traceback" not in errors


class TestTwist:
    def test_the_twist_plugin_serves_the_digits(self, servers: dict[str, Process]) -> None:
        picture = (ROOT / "examples" / "digits" / "3.png").read_bytes()
        status, body = post(servers["twist"], "/predict", picture, "image/png")
        assert status == 200
        assert json.loads(body)["predictions"][0]["label"] == "3"
        assert servers["twist"].get("/readyz") == '{"ready":true}'

    def test_half_closed_clients_are_answered_on_a_reactor_of_twisted_too(
        self, servers: dict[str, Process]
    ) -> None:
        with servers["twist"].connect() as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            data = receive_all(connection)
        assert data.count(b"HTTP/1.1 200 OK") == 1
        assert data.endswith(b'{"live":true}')

    def test_it_answers_what_it_accepted_and_stops_on_a_signal(
        self, servers: dict[str, Process]
    ) -> None:
        server = servers["stopped"]
        with server.connect() as connection:
            connection.sendall(b"GET /livez HT")
            until(lambda: server.metric("batcher_connections") >= 2)
            server.signal(signal.SIGTERM)
            until(lambda: not server.listens(), seconds=5)
            connection.sendall(b"TP/1.1\r\nHost: h\r\n\r\n")
            assert receive_all(connection).endswith(b'{"live":true}')
        assert server.wait(10) in (0, -signal.SIGTERM), (
            "twist ends itself by the signal that stopped it"
        )
        assert "Traceback" not in server.errors + "\n".join(server.lines[-5:])

    def test_a_wrong_configuration_is_a_message_and_no_traceback(self, folder: Path) -> None:
        wrong = folder / "wrong.yaml"
        wrong.write_text("prot: 8080\n")
        with started(folder, command=(*TWIST, str(wrong)), ready=False) as server:
            assert server.wait(60) != 0
            output = server.errors + "\n".join(server.lines)
            assert "did you mean port" in output
            assert "Traceback" not in output


class TestCheck:
    def test_a_right_configuration_is_confirmed_with_its_models(self) -> None:
        result = run("check")
        assert result.returncode == 0, result.stderr
        assert "digits/1" in result.stdout
        assert "FP32[-1,1,8,8]" in result.stdout

    def test_a_wrong_setting_is_named_with_its_place_and_the_nearest_known_one(
        self, folder: Path
    ) -> None:
        config = folder / "check.yaml"
        config.write_text("port: 8080\nmax_body_byte: 1MiB\ndefaults:\n  max_batch_size: none\n")
        result = run("check", "-c", str(config))
        assert result.returncode == 1
        assert "check.yaml:2" in result.stderr
        assert "max_body_bytes" in result.stderr
        assert "check.yaml:4" in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_wrong_variable_is_named(self) -> None:
        result = run("check", environment={"BATCHER_PORT": "many"})
        assert result.returncode == 1
        assert "BATCHER_PORT" in result.stderr

    def test_a_wrong_model_is_named_beside_those_that_are_right(self, folder: Path) -> None:
        result = run("check", "-c", str(folder / "lenient.yaml"))
        assert result.returncode == 1
        assert "undefined/1" in result.stderr
        assert "model.yaml:2" in result.stderr
        assert "good/1" in result.stdout
