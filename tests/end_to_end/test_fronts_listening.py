"""Where a server with fronts listens: TLS, Unix sockets, and sockets from systemd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import pytest

from tests.end_to_end.processes import Process, one_answer, started, until, write_model
from tests.end_to_end.test_fronts import DOUBLES, SLOW, ask, children
from tests.end_to_end.test_listening import READY, certify, connect_unix, only_answer, wait_ready

Connect = Callable[[], socket.socket]

EVERY_FRONT = 16
"""Connections, some of which each of two fronts surely gets: else the test fails, once in 32,768
times.
"""

SYSTEMD = """
import os, signal, socket, sys

listeners = []
for address in {addresses!r}:
    listener = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    listener.bind(address)
    listener.listen(4096)
    listeners.append(listener)

def start():
    pid = os.fork()
    if pid:
        return pid
    for place, listener in enumerate(listeners):
        os.dup2(listener.fileno(), 20 + place)
    for place in range(len(listeners)):
        os.dup2(20 + place, 3 + place)
        os.close(20 + place)
    os.execvp("sh", ["sh", "-c", {run!r}])

def stop(*_):
    global is_over
    is_over = True
    os.kill(server, signal.SIGTERM)

is_over, server = False, start()
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, lambda *_: os.kill(server, signal.SIGTERM))
while True:
    status = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
    if is_over:
        sys.exit(status)
    server = start()
"""
"""What systemd does: listens, starts the server with the sockets from 3 on, and on SIGUSR1 ends the
server and starts it again.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "models", "doubles", DOUBLES)
    write_model(tmp_path / "models", "slow", SLOW)
    return tmp_path


@contextmanager
def serving(folder: Path, *pairs: str, ready: bool = True) -> Iterator[Process]:
    words = ("port=0", "fronts=2", f"model_repository={folder / 'models'}", *pairs)
    arguments = [part for pair in words for part in ("--set", pair)]
    with started(folder, *arguments, command=("serve.py",), ready=False) as server:
        if ready:
            wait_ready(server)
        yield server
        assert "Traceback" not in server.errors


def check_every_front(connect: Connect) -> None:
    """Have so many connections answered that every front has some."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect()) for _ in range(EVERY_FRONT)]
        for client in clients:
            ask(client)
        assert {one_answer(client).status for client in clients} == {200}


def check_end(server: Process, connect: Connect) -> None:
    """Have a server stop that has requests, each of which is answered."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect()) for _ in range(EVERY_FRONT)]
        for client in clients:
            ask(client)
            assert one_answer(client).status == 200
            ask(client, "slow")
        server.signal(signal.SIGTERM)
        assert {one_answer(client).status for client in clients} == {200}
    assert server.wait(20) == 0


def kill_front(server: Process) -> None:
    """Kill a front, and wait until another has its place."""
    front = children(server.pid)[1]
    os.kill(front, signal.SIGKILL)
    until(lambda: front not in children(server.pid) and len(children(server.pid)) == 3)


def test_fronts_share_a_unix_socket_which_goes_at_the_end(folder: Path) -> None:
    path = folder / "s.sock"
    with socket.socket(socket.AF_UNIX) as killed:  # a server that was killed leaves its file
        killed.bind(str(path))
    with serving(folder, f"unix_socket={path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660

        def connect() -> socket.socket:
            return connect_unix(path)

        check_every_front(connect)
        kill_front(server)
        check_every_front(connect)
        with serving(folder, f"unix_socket={path}", ready=False) as second:
            assert second.wait(20) == 1
            assert f"cannot listen on {path}" in second.errors
        os.kill(children(server.pid)[0], signal.SIGKILL)
        until(lambda: "it is started again" in server.errors.partition("the engine has ended")[2])
        until(lambda: is_ready(connect), 60)
        check_end(server, connect)
    assert not path.exists()


def test_a_port_that_another_program_has_ends_the_start_with_the_reason(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serving(folder, f"port={port}", ready=False) as server:
            assert server.wait(20) == 1
            assert f"another program has port {port}" in server.errors


def is_ready(connect: Connect) -> bool:
    with connect() as client:
        client.sendall(READY)
        return only_answer(client).status == 200


def meet(connect: Connect, over: Event, outcomes: list[str]) -> None:
    """Ask again and again, each time on a new connection, and note what comes."""
    while not over.is_set():
        try:
            with connect() as client:
                ask(client)
                answer = one_answer(client)
            later = answer.status == 503 and answer.header("retry-after") is not None
            outcomes.append("later" if later else str(answer.status))
        except (AssertionError, OSError) as err:
            outcomes.append(repr(err))


def test_a_restart_refuses_no_connection_on_sockets_that_systemd_passes(folder: Path) -> None:
    path = folder / "s.sock"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = f"LISTEN_PID=$$ LISTEN_FDS=2 exec {sys.executable} serve.py --set fronts=2"
    script = SYSTEMD.format(addresses=[("127.0.0.1", port), str(path)], run=run)
    environment = {"BATCHER_MODEL_REPOSITORY": str(folder / "models"), "BATCHER_PORT": "1"}
    with started(folder, command=("-c", script), environment=environment, ready=False) as systemd:
        wait_ready(systemd)
        assert systemd.host_and_port == ("127.0.0.1", port)
        connects: list[Connect] = [systemd.connect, lambda: connect_unix(path)]
        for connect in connects:
            check_every_front(connect)
        (server,) = children(systemd.pid)
        over, outcomes = Event(), list[str]()
        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(meet, connect, over, outcomes) for connect in connects * 2]
            until(lambda: len(outcomes) > 100)
            systemd.signal(signal.SIGUSR1)
            until(lambda: server not in children(systemd.pid))
            before = outcomes.count("200")
            until(lambda: outcomes.count("200") > before + 100, 60)
            over.set()
            for client in clients:
                client.result(30)
        assert set(outcomes) <= {"200", "later"}
        systemd.signal(signal.SIGTERM)
        assert systemd.wait(20) == 0
        assert path.exists(), "the file is systemd's"
        assert "Traceback" not in systemd.errors


def test_every_front_shows_the_certificate_that_a_reload_has_read(folder: Path) -> None:
    for name in ("own", "other"):
        certify(folder, name)
    shown = folder / "shown.pem"
    shutil.copy(folder / "own.pem", shown)
    with serving(folder, f"tls_certificate={shown}") as server:
        host_and_port = server.host_and_port

        def is_shown(name: str) -> bool:
            expected = ssl.PEM_cert_to_DER_cert((folder / f"{name}.crt").read_text())
            found = {
                ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(host_and_port, timeout=30))
                for _ in range(EVERY_FRONT)
            }
            return found == {expected}

        assert is_shown("own")
        shutil.copy(folder / "other.pem", shown)
        server.signal(signal.SIGHUP)
        until(lambda: is_shown("other"))
        kill_front(server)
        assert is_shown("other")
        context = ssl.create_default_context(cafile=str(folder / "other.crt"))

        def connect() -> socket.socket:
            return context.wrap_socket(server.connect(), server_hostname="localhost")

        check_end(server, connect)
