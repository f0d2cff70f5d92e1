"""Loads in one process: one at a time, and what they change is put back and told."""

from __future__ import annotations

import os
from threading import Event, Thread
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from batcher.errors import ModelLoadError
from batcher.models.load_pause import others_may_load
from batcher.workers.load_alone import LOAD_LOCK, LoadLock, load_alone
from tests.support.crossing import PATIENCE


def call(function: Any, *arguments: Any) -> None:
    """Stand for the way to the loop."""
    function(*arguments)


def test_a_load_waits_until_the_one_before_has_ended() -> None:
    lock, entered, events = LoadLock(), Event(), []

    def second() -> None:
        entered.set()
        lock.take_for("second")
        events.append("second")

    thread = Thread(target=second, daemon=True)
    lock.take_for("first")
    thread.start()
    assert entered.wait(PATIENCE)
    events.append("first")
    lock.take_from("first")
    thread.join(PATIENCE)
    assert events == ["first", "second"]


def test_a_load_that_hangs_can_lose_the_lock_and_does_not_take_it_from_the_next_one() -> None:
    lock = LoadLock()
    lock.take_for("hangs")
    lock.take_from("hangs")
    lock.take_for("next")
    assert not lock.is_held_by("hangs")
    lock.take_from("hangs")
    assert lock.is_held_by("next")


def test_what_a_load_has_changed_is_put_back_and_told_with_the_model_s_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BELONGS_TO_ALL", "before")
    said: list[str] = []

    def observe(event: Any) -> None:
        said.append(event["log_format"].format(**event))

    def load() -> str:
        os.environ["BELONGS_TO_ALL"] = "after"
        return "a model"

    globalLogPublisher.addObserver(observe)
    try:
        assert load_alone(object(), "model 'm' version 1", load, call) == "a model"
        assert load_alone(object(), "model 'n' version 1", lambda: "another", call) == "another"
    finally:
        globalLogPublisher.removeObserver(observe)
    assert os.environ["BELONGS_TO_ALL"] == "before"
    (line,) = said
    assert line.startswith("model 'm' version 1: its load changed")
    assert "environment variables (BELONGS_TO_ALL)" in line
    assert "worker: process" in line


def test_what_a_load_that_fails_has_changed_is_put_back_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BELONGS_TO_ALL", "before")

    def load() -> None:
        os.environ["BELONGS_TO_ALL"] = "after"
        raise RuntimeError("no weights")

    with pytest.raises(RuntimeError, match="no weights"):
        load_alone(object(), "model 'm' version 1", load, call)
    assert os.environ["BELONGS_TO_ALL"] == "before"


def test_a_load_that_was_given_up_changes_nothing_under_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BELONGS_TO_ALL", "before")
    holder = object()

    def load() -> None:
        LOAD_LOCK.take_from(holder)
        os.environ["BELONGS_TO_ALL"] = "the next one's"

    load_alone(holder, "model 'm' version 1", load, call)
    assert os.environ["BELONGS_TO_ALL"] == "the next one's"


def test_a_load_that_waits_for_another_process_lets_others_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BELONGS_TO_ALL", "before")
    events: list[str] = []

    def another() -> None:
        events.append(f"another loads, {os.environ['BELONGS_TO_ALL']}")

    def load() -> None:
        os.environ["BELONGS_TO_ALL"] = "changed"
        with others_may_load():
            load_alone(object(), "model 'n' version 1", another, call)
        events.append(f"goes on, {os.environ['BELONGS_TO_ALL']}")
        assert LOAD_LOCK.is_held_by(holder)

    holder = object()
    load_alone(
        holder,
        "model 'm' version 1",
        load,
        call,
        lambda: events.append("paused"),
        lambda: events.append("resumes"),
    )
    told = ["resumes", "paused", "another loads, before", "resumes", "goes on, before"]
    assert events == told
    assert not LOAD_LOCK.is_held_by(holder)


def test_a_load_that_was_given_up_in_its_pause_does_not_go_on() -> None:
    def load() -> None:
        with others_may_load():
            pass
        raise AssertionError("it went on")

    def refuse() -> None:
        raise ModelLoadError("it was given up")

    holder = object()
    with pytest.raises(ModelLoadError, match="given up"):
        load_alone(holder, "model 'm' version 1", load, call, resumes=refuse)
    assert not LOAD_LOCK.is_held_by(holder)


def test_a_load_that_is_given_up_while_it_waits_for_another_does_not_load() -> None:
    """Nobody would take the lock from it again."""
    begun, may_end, waits = Event(), Event(), Event()
    given_up = object()

    def first() -> None:
        begun.set()
        assert may_end.wait(PATIENCE)

    def second() -> None:
        raise AssertionError("it loads")

    def refuse() -> None:
        raise ModelLoadError("it was given up")

    def load_second() -> None:
        waits.set()
        with pytest.raises(ModelLoadError, match="given up"):
            load_alone(given_up, "model 'n' version 1", second, call, resumes=refuse)

    threads = [Thread(target=load_alone, args=(object(), "m", first, call), daemon=True)]
    threads[0].start()
    assert begun.wait(PATIENCE)
    threads.append(Thread(target=load_second, daemon=True))
    threads[1].start()
    assert waits.wait(PATIENCE)
    LOAD_LOCK.take_from(given_up)  # as the server does when a load takes too long
    may_end.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not LOAD_LOCK.is_held_by(given_up)
