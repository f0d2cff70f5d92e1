"""The processes of a server with fronts: what each does where another has ended or is missing."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import PIPE_BUF
from types import SimpleNamespace
from typing import Any

import pytest

from batcher.app.fronts import front_process, supervisor
from batcher.app.fronts.engine_front import LinkPort
from batcher.app.fronts.front_process import RECONNECT_S, FrontProgram
from batcher.app.fronts.places import Places, places_of
from batcher.app.fronts.starting import close_last
from batcher.app.fronts.supervisor import ENGINE, Supervisor, line_writer
from batcher.frontends.listening.sockets import is_served


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervising(said: list[str]) -> Supervisor:
    places: Any = SimpleNamespace(ready=bytearray(1))
    return Supervisor(places, lambda number: 0, said.append)


def ended(supervising: Supervisor, number: int, code: int) -> int | None:
    supervising._begun[number] = 0.0
    return supervising._ended(number, code)


def test_an_engine_that_was_never_ready_ends_the_server(supervising: Supervisor) -> None:
    assert ended(supervising, ENGINE, 1) == 1
    assert ended(supervising, ENGINE, -signal.SIGKILL) == 128 + signal.SIGKILL


def test_an_engine_that_was_told_to_end_by_anybody_ends_the_server(
    supervising: Supervisor, said: list[str]
) -> None:
    supervising._places.ready[0] = 1
    assert ended(supervising, ENGINE, 0) == 0  # its fronts have closed their ports
    assert ended(supervising, 0, 0) is None
    assert said == ["front 0 has ended with status 0; it is started again"]


def test_a_process_that_dies_of_any_signal_is_started_again(
    supervising: Supervisor, said: list[str]
) -> None:
    supervising._places.ready[0] = 1
    real_time = signal.SIGRTMIN + 1  # has no name
    assert ended(supervising, ENGINE, -signal.SIGSEGV) is None
    assert ended(supervising, 1, -real_time) is None
    assert said == [
        "the engine has ended with SIGSEGV; it is started again",
        f"front 1 has ended with signal {real_time}; it is started again",
    ]
    assert set(supervising._due) == {ENGINE, 1}


def test_a_process_that_cannot_be_started_now_is_started_later(
    supervising: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", no_fork)
    supervising._start(0)
    assert said == [
        f"front 0 cannot be started now, and is tried again: [Errno {errno.EAGAIN}] "
        "no more processes"
    ]
    wait = supervising._next_wait()
    assert wait is not None
    assert 0 < wait <= supervisor.MAX_PAUSE_S


class Loop:
    """Stands for the asyncio loop; remembers what it is to call later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.readers: list[int] = []

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        self.later.append((seconds, function))

    def add_reader(self, descriptor: int, *_: object) -> None:
        self.readers.append(descriptor)


@pytest.fixture
def places() -> Places:
    found = places_of([[]], False)
    os.close(found.lifeline)
    os.close(found.alive)
    return found


def test_a_front_without_descriptors_goes_on_trying_to_reach_the_engine(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [front_process.sealed_file]

    def sealed_file(nbytes: int) -> int:
        if not left:
            raise OSError(errno.EMFILE, "Too many open files")
        return left.pop()(nbytes)

    monkeypatch.setattr(front_process, "sealed_file", sealed_file)
    loop: Any = Loop()
    program = FrontProgram(loop, loop, Path(), places, 0)
    before = os.listdir("/proc/self/fd")
    program._connect()
    assert loop.later == [(RECONNECT_S, program._connect)]
    assert os.listdir("/proc/self/fd") == before
    places.link.close()


@pytest.mark.parametrize(("user", "heard"), [(os.geteuid(), 1), (os.geteuid() + 1, 0)])
def test_the_engine_hears_programs_of_its_own_user_alone(
    places: Places, user: int, heard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop: Any = Loop()
    port: Any = LinkPort(loop, places, SimpleNamespace())  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(places.link_name)
        monkeypatch.setattr(os, "geteuid", lambda: user)
        port._accept()
        assert len(loop.readers) == heard
        if not heard:
            assert other.recv(1) == b""
    places.link.close()


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_the_file_of_a_unix_socket_goes_with_the_last_process_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    close_last([listening(path)])
    assert not path.exists()


def test_the_file_of_a_unix_socket_stays_if_another_server_has_the_path(tmp_path: Path) -> None:
    path = tmp_path / "s"
    ours = listening(path)
    path.unlink()  # as fronts do when they close their ports
    with listening(path):
        close_last([ours])
        assert is_served(path)


def test_a_line_that_nobody_reads_is_dropped_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, sink = os.pipe()
    monkeypatch.setattr(supervisor, "STANDARD_ERROR", sink)
    say = line_writer("text")
    try:
        os.set_blocking(sink, False)
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += os.write(sink, bytes(4096))
        os.set_blocking(sink, True)  # from here on a write would wait for ever
        say("front 0 has ended")
        assert os.read(source, filled) == bytes(filled)
        say("front 1 has ended")
        assert os.read(source, filled) == b"[batcher.app.fronts] front 1 has ended\n"
    finally:
        os.close(source)
        os.close(sink)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("character", ["x", "é", "\0", "\U0001f600"])
def test_a_long_line_is_cut_to_what_a_pipe_with_room_takes_at_once(
    log_format: str, character: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sink = os.pipe()
    monkeypatch.setattr(supervisor, "STANDARD_ERROR", sink)
    try:
        line_writer(log_format)(f"begins{character * 10_000}ends")
        line = os.read(source, 1 << 16)
    finally:
        os.close(source)
        os.close(sink)
    assert len(line) <= PIPE_BUF
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert b"begins" in line
    assert b"ends" in line
