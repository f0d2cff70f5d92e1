"""Where a server listens: TLS, Unix sockets, shared ports, and sockets from systemd.

Each on uvloop and on a reactor of Twisted.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.end_to_end.processes import Process, one_answer, receive_all, started, until, write_model
from tests.support.http_answers import Answer, parse_answers

DOUBLES = 'class Model:\n    def predict(self, inputs):\n        return {"y": inputs["x"] * 2}\n'
SLOW = "import time\n" + DOUBLES.replace(
    "        return", "        time.sleep(0.3 * inputs['x'].any())\n        return"
)
ROW = np.ones(4, "<f4").tobytes()
TWIST = ("-m", "twisted", "--reactor=epoll", "--log-format=text", "batcher")
KINDS = ("serve", "twist")
READY = b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
LOADERS = 4
BEFORE_STOP = 2000


def predict(body: bytes, *fields: str, model: str = "doubles") -> bytes:
    kind = "Content-Type: application/octet-stream"
    lines = [
        f"POST /models/{model}/predict HTTP/1.1",
        "Host: h",
        kind,
        f"Content-Length: {len(body)}",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def only_answer(connection: socket.socket) -> Answer:
    (answer,), rest = parse_answers(receive_all(connection), [], over=True)
    assert not rest
    return answer


def certify(folder: Path, name: str) -> None:
    """Write a certificate for this machine that is its own authority.

    The files are `NAME.crt`, `NAME.key`, and `NAME.pem` with both.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    )
    builder = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
    now = datetime.now(UTC)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(
        now + timedelta(days=1)
    )
    builder = builder.add_extension(names, False).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), True
    )
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.crt").write_bytes(certificate)
    (folder / f"{name}.key").write_bytes(secret)
    (folder / f"{name}.pem").write_bytes(certificate + secret)


def launch(folder: Path, kind: str, **settings: object) -> AbstractContextManager[Process]:
    variables = {
        "model_repository": folder / "models",
        "port": 0,
        "defaults__torch_threads": 1,
    } | settings
    environment = {f"BATCHER_{name.upper()}": str(value) for name, value in variables.items()}
    command = ("serve.py",) if kind == "serve" else TWIST
    return started(folder, command=command, environment=environment, ready=False)


def wait_ready(server: Process) -> str:
    """Wait until `server` is ready, and return where it listens, which need not be `http://`."""
    until(lambda: any("ready on " in line for line in server.lines), 60)
    address = (
        next(line for line in server.lines if "ready on " in line)
        .partition("ready on ")[2]
        .split()[0]
    )
    server.address = address.replace("https:", "http:")  # for `Process.connect`
    return address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("listening")
    write_model(folder / "models", "doubles", DOUBLES)
    write_model(folder / "models", "slow", SLOW)
    certify(folder, "own")
    certify(folder, "other")
    return folder


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[dict[str, Process]]:
    apart = {"tls_certificate": folder / "own.crt", "tls_key": folder / "own.key"}
    contexts = {
        "serve tls": launch(folder, "serve", **apart),
        "twist tls": launch(folder, "twist", tls_certificate=folder / "own.pem"),
        "serve unix": launch(folder, "serve", unix_socket=folder / "serve.sock"),
        "twist unix": launch(folder, "twist", unix_socket=folder / "twist.sock"),
    }
    with ExitStack() as stack:
        running = {name: stack.enter_context(context) for name, context in contexts.items()}
        for name, server in running.items():
            assert wait_ready(server).startswith(
                "https://127.0.0.1:" if "tls" in name else f"unix:{folder}/"
            )
        yield running
        assert not [server.errors for server in running.values() if "Traceback" in server.errors]


@pytest.fixture(scope="module")
def context(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "own.crt"))


def connect_unix(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(path))
    return client


def metric(server: Process, context: ssl.SSLContext, name: str) -> int:
    """Return the sum of the metrics whose name matches `name`, of a server that speaks TLS."""
    with context.wrap_socket(server.connect(), server_hostname="localhost") as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        metrics = only_answer(client).body.decode()
    return sum(
        int(float(value))
        for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    )


@pytest.mark.parametrize("kind", KINDS)
class TestTls:
    def test_a_kept_connection_answers_again_and_again(
        self, servers: dict[str, Process], context: ssl.SSLContext, kind: str
    ) -> None:
        with context.wrap_socket(
            servers[f"{kind} tls"].connect(), server_hostname="localhost"
        ) as client:
            for _ in range(3):
                client.sendall(predict(ROW))
                assert np.frombuffer(one_answer(client).body, "<f4").tolist() == [2, 2, 2, 2]

    def test_a_body_of_megabytes_and_its_answer_pass(
        self, servers: dict[str, Process], context: ssl.SSLContext, kind: str
    ) -> None:
        rows = np.arange(16_384, dtype="<f4").reshape(-1, 4)  # 64 KiB of rows
        text = json.dumps({"inputs": {"x": rows.tolist()}}).ljust(8 << 20).encode()
        request = predict(text, "Connection: close", "Accept: application/octet-stream").replace(
            b"octet-stream", b"json", 1
        )
        with context.wrap_socket(
            servers[f"{kind} tls"].connect(), server_hostname="127.0.0.1"
        ) as client:
            client.sendall(request)
            answer = only_answer(client)
        assert answer.status == 200, answer.body
        assert answer.body == (rows * 2).tobytes()
        until(lambda: metric(servers[f"{kind} tls"], context, "batcher_connections") == 1, 10)

    def test_nothing_older_than_1_2_is_spoken(self, servers: dict[str, Process], kind: str) -> None:
        def speaks(version: ssl.TLSVersion) -> str | None:
            client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
            client.set_ciphers("ALL:@SECLEVEL=0")
            client.minimum_version = client.maximum_version = version
            with client.wrap_socket(servers[f"{kind} tls"].connect()) as connection:
                return connection.version()

        assert speaks(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert speaks(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1"),
            pytest.raises(ssl.SSLError, match=r"(?i)protocol"),
        ):
            speaks(ssl.TLSVersion.TLSv1_1)

    def test_what_was_accepted_is_answered_when_it_stops(
        self, folder: Path, context: ssl.SSLContext, kind: str
    ) -> None:
        with launch(folder, kind, tls_certificate=folder / "own.pem") as server:
            wait_ready(server)
            # as in many pools, nobody ever looks at this connection again
            idle = context.wrap_socket(server.connect(), server_hostname="localhost")
            kept = [
                context.wrap_socket(server.connect(), server_hostname="localhost") for _ in range(4)
            ]
            for client in kept:
                client.sendall(predict(ROW))
                assert one_answer(client).status == 200
                client.sendall(predict(ROW, model="slow"))
            until(lambda: metric(server, context, "batcher_(?:queue|in_flight)_rows") == 4)
            late = server.connect()  # accepted by the kernel; its handshake comes after the signal
            server.signal(signal.SIGTERM)
            with context.wrap_socket(late, server_hostname="localhost") as client:
                client.sendall(predict(ROW))
                assert only_answer(client).status in (200, 503), "503 if it came too late"
            for client in kept:
                with client:
                    answer = only_answer(client)
                assert answer.status == 200, answer.body
                assert answer.header("connection") in ("close", None), (
                    "none if it came while the late one was taken"
                )
            assert server.wait(10) in (0, -signal.SIGTERM)
            idle.close()
            assert "Traceback" not in server.errors


def test_a_certificate_that_cannot_be_used_is_an_error_that_names_its_setting(folder: Path) -> None:
    pairs = [
        ("own.crt", "other.key"),
        ("absent.crt", "own.key"),
        ("own.crt", "absent.key"),
        ("own.crt", "own.crt"),
    ]
    with ExitStack() as stack:
        for files in (
            {"tls_certificate": folder / first, "tls_key": folder / second}
            for first, second in pairs
        ):
            server = stack.enter_context(launch(folder, "serve", **files))
            assert server.wait(60) == 1
            assert "BATCHER_TLS_CERTIFICATE: tls_certificate: expected" in server.errors
            assert all(str(file) in server.errors for file in files.values())
            assert "Traceback" not in server.errors


@pytest.mark.parametrize("kind", KINDS)
class TestUnixSocket:
    @pytest.mark.usefixtures("servers")
    def test_it_answers(self, folder: Path, kind: str) -> None:
        with connect_unix(folder / f"{kind}.sock") as client:
            client.sendall(predict(ROW, "Connection: close"))
            assert only_answer(client).status == 200

    @pytest.mark.usefixtures("servers")
    def test_its_file_is_open_to_owner_and_group_whatever_the_umask(
        self, folder: Path, kind: str
    ) -> None:
        assert stat.S_IMODE((folder / f"{kind}.sock").stat().st_mode) == 0o660

    @pytest.mark.usefixtures("servers")
    def test_a_second_server_on_it_fails_and_leaves_it_alone(self, folder: Path, kind: str) -> None:
        path = folder / f"{kind}.sock"
        with launch(folder, kind, unix_socket=path) as second:
            assert (second.wait(20) != 0) is (kind == "serve"), "twist ends as it does on a signal"
            output = second.errors + "\n".join(second.lines)
            assert f"cannot listen on {path}" in output
            assert "Traceback" not in output
        with connect_unix(path) as client:  # the first still has it
            client.sendall(READY)
            assert only_answer(client).status == 200

    def test_a_killed_servers_file_is_replaced_and_goes_at_the_end(
        self, folder: Path, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / "stale.sock"
        # closed without unlinking, as the kernel does for a killed process
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
            killed.listen()
        with launch(folder, kind, unix_socket=path) as server:
            assert wait_ready(server) == f"unix:{path}"
            with connect_unix(path) as client:
                client.sendall(READY)
                assert only_answer(client).status == 200
            server.signal(signal.SIGTERM)
            assert server.wait(10) in (0, -signal.SIGTERM)
        assert not path.exists()


def test_two_servers_share_a_port_and_both_answer(folder: Path) -> None:
    with socket.socket() as reserved, ExitStack() as stack:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))  # not listening: it only keeps the port
        port = reserved.getsockname()[1]
        pair = [
            stack.enter_context(launch(folder, "serve", port=port, reuse_port="true"))
            for _ in range(2)
        ]
        assert {wait_ready(server) for server in pair} == {f"http://127.0.0.1:{port}"}
        before = [len(os.listdir(f"/proc/{server.pid}/fd")) for server in pair]
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            for _ in range(64)
        ]
        for client in clients:
            client.sendall(predict(ROW))
            assert one_answer(client).status == 200
        now = [len(os.listdir(f"/proc/{server.pid}/fd")) for server in pair]
        assert all(count > earlier for count, earlier in zip(now, before, strict=True)), (
            "both have some of them"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_that_systemd_passed_is_served(folder: Path, kind: str) -> None:
    run = (
        f"LISTEN_PID=$$ LISTEN_FDS=1 exec {sys.executable} "
        f"{' '.join(('serve.py',) if kind == 'serve' else TWIST)}"
    )
    opened = (
        "import os, socket; os.dup2(socket.create_server(('127.0.0.1', 0)).detach(), 9); "
        "os.dup2(9, 3)"
    )
    script = f"{opened}; os.execvp('sh', ['sh', '-c', {run!r}])"
    environment = {"BATCHER_MODEL_REPOSITORY": str(folder / "models"), "BATCHER_PORT": "1"}
    with started(folder, command=("-c", script), environment=environment, ready=False) as server:
        wait_ready(server)
        assert server.host_and_port[1] > 1
        assert server.get("/readyz") == '{"ready":true}'
        server.signal(signal.SIGTERM)
        assert server.wait(10) in (0, -signal.SIGTERM)


def reconnect(port: int, enough: Event, outcomes: list[str]) -> None:
    """Connect eight clients at a time until connections are refused; note how each one ends.

    A reset while a client connects is a refusal as well: the port was closed between the two halves
    of the handshake.
    """
    refused = False
    while not refused:
        clients = []
        for _ in range(8):
            try:
                clients.append(socket.create_connection(("127.0.0.1", port), 20))
            except (ConnectionRefusedError, ConnectionResetError):
                refused = True
        for client in clients:
            try:
                client.sendall(READY)
                outcomes.append(receive_all(client).partition(b"\r")[0].decode())
            except OSError as err:
                outcomes.append(type(err).__name__)
            client.close()
        if len(outcomes) > BEFORE_STOP:
            enough.set()


def test_every_connection_that_the_kernel_accepted_is_answered_when_it_stops(folder: Path) -> None:
    enough, outcomes = Event(), list[str]()
    # In this order: a loader ends when it finds no server any more, also where the test has failed.
    with ThreadPoolExecutor(LOADERS) as pool, launch(folder, "serve") as server:
        wait_ready(server)
        loaders = [
            pool.submit(reconnect, server.host_and_port[1], enough, outcomes)
            for _ in range(LOADERS)
        ]
        assert enough.wait(300)  # on a busy machine
        server.signal(signal.SIGTERM)
        assert server.wait(15) == 0
        for loader in loaders:
            loader.result(30)
        assert "Traceback" not in server.errors
    counts = Counter(outcomes)
    # the last third of a handshake can be cut off, of at most one connection a loader
    unfinished = counts.pop("ConnectionResetError", 0)
    assert unfinished <= LOADERS, (unfinished, counts)
    assert set(counts) <= {"HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable"}, counts
