"""Calls in the child process: their results, their errors, and the end of the child."""

from __future__ import annotations

import operator
import os
import signal
import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

import numpy as np
import pytest

from batcher.codecs.formats.json_text import from_json
from batcher.errors import DecodingError, Draining, Unavailable
from batcher.workers.codec_process.process import CodecProcess
from tests.support.crossing import PATIENCE

OWNER = object()


@pytest.fixture
def process() -> Iterator[CodecProcess]:
    """A process that starts its child when it is called."""
    process = CodecProcess()
    yield process
    process.stop()


def call(process: CodecProcess, function: Any, *arguments: Any) -> Any:
    """Return what the child returns."""
    return process.call(OWNER, function, arguments)


def test_a_call_returns_what_the_function_returns(process: CodecProcess) -> None:
    assert call(process, from_json, memoryview(b'{"a": [1, 2]}')) == {"a": [1, 2]}
    np.testing.assert_array_equal(call(process, np.add, np.arange(4), 1), [1, 2, 3, 4])


def test_the_calls_are_made_by_one_and_the_same_other_process(process: CodecProcess) -> None:
    pids = {call(process, os.getpid) for _ in range(3)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_an_error_of_ours_comes_back_as_that_error(process: CodecProcess) -> None:
    with pytest.raises(DecodingError, match="expected JSON"):
        call(process, from_json, b"{")


def test_an_error_of_others_comes_back_in_a_class_of_its_name(process: CodecProcess) -> None:
    with pytest.raises(Exception, match="division by zero") as caught:
        call(process, operator.truediv, 1, 0)
    assert type(caught.value).__name__ == "ZeroDivisionError"


LEAVE_A_CIRCLE = """
import sys, weakref

class Reader: pass

reader = Reader()
reader.itself = reader
sys.reader = weakref.ref(reader)
"""


def test_what_refers_to_itself_does_not_outlive_its_call(process: CodecProcess) -> None:
    call(process, exec, LEAVE_A_CIRCLE, {})
    assert call(process, eval, "__import__('sys').reader()") is None


def test_a_child_that_ends_fails_one_call_and_is_replaced(process: CodecProcess) -> None:
    with pytest.raises(Unavailable, match="exited with status 3"):
        call(process, os._exit, 3)
    assert call(process, len, b"abc") == 3


def test_an_answer_that_finds_no_free_descriptor_fails_one_call(
    process: CodecProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(connection: object) -> int:
        raise RuntimeError("received 0 items of ancdata")

    with monkeypatch.context() as patch:
        patch.setattr("batcher.workers.codec_process.process.recv_handle", receive)
        with pytest.raises(Unavailable):
            call(process, len, b"abc")
    assert not process.is_busy
    assert call(process, len, b"abcd") == 4


def test_a_child_that_was_killed_between_two_calls_fails_none(process: CodecProcess) -> None:
    pid = call(process, os.getpid)
    os.kill(pid, 9)
    ended = os.pidfd_open(pid)
    try:
        os.waitid(os.P_PIDFD, ended, os.WEXITED | os.WNOWAIT)
    finally:
        os.close(ended)
    assert call(process, os.getpid) != pid


def test_a_call_that_is_given_up_ends_its_child_alone(process: CodecProcess) -> None:
    pid = call(process, os.getpid)
    failures: list[BaseException] = []

    def calling() -> None:
        try:
            call(process, time.sleep, 1000)
        except Unavailable as err:
            failures.append(err)

    thread = Thread(target=calling, daemon=True)
    thread.start()
    process.give_up(object())  # somebody else's
    while not failures and thread.is_alive():
        process.give_up(OWNER)
    thread.join(PATIENCE)
    assert len(failures) == 1
    assert call(process, os.getpid) != pid


def test_a_child_that_rests_is_gone_and_the_next_call_starts_another(process: CodecProcess) -> None:
    pid = call(process, os.getpid)
    process.rest()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert call(process, os.getpid) != pid


def test_a_stopped_process_takes_no_more_calls(process: CodecProcess) -> None:
    pid = call(process, os.getpid)
    process.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Draining):
        call(process, len, b"")


def test_the_thread_that_starts_the_child_hears_signals_as_before(process: CodecProcess) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    call(process, len, b"")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
