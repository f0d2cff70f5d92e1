"""Files that lines of a job name: asked for again, within the prefixes and the bounds."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, InputMissing, InputSourceFailed, InvalidInput, TooLarge
from batcher.serving.references.fetcher import MAX_FILES, rules_of
from batcher.serving.references.line_files import AGAIN_S, FILE_S, LineFiles
from tests.serving.references.test_fetcher import A, B, Bucket

GONE = InputSourceFailed("no answer")


class Lines:
    """A job's files, with a bucket in memory.

    Attributes:
        settings: those of the server at the moment.
        waits: seconds that were waited between attempts.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = {"input_sources": ["s3://photos/"], **settings}
        self.clock, self.bucket = Clock(), Bucket()
        self.waits: list[float] = []
        self.allow()
        open_source: Any = lambda *_: self.bucket  # noqa: E731
        self.files = LineFiles(lambda: self.rules, open_source, self.clock.seconds, self._sleep)

    def allow(self, **settings: Any) -> None:
        self.settings |= settings
        self.rules = rules_of(ServerSettings.model_validate(self.settings))

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)
        if len(self.waits) == 2 and self.bucket.files["a"] is GONE:
            self.bucket.files["a"] = b"A"


def test_a_file_is_asked_for_again_until_it_is_there() -> None:
    lines = Lines()
    lines.bucket.files["a"] = GONE
    found = lines.files.fetch([A, B, A])
    assert dict(found) == {A: b"A", B: b"BB"}
    assert lines.waits == list(AGAIN_S)
    assert [name for name, _ in lines.bucket.events] == ["a", "a", "a", "b"]


def test_what_is_wrong_with_one_file_is_that_of_its_line_alone() -> None:
    lines = Lines()
    lines.bucket.files |= {"b": InputSourceFailed("for ever"), "c": InputMissing("none")}
    other = "s3://secret/a"
    found = lines.files.fetch([A, B, "s3://photos/c", other])
    assert found[A] == b"A"
    for address, kind in ((B, InputSourceFailed), ("s3://photos/c", InputMissing)):
        with pytest.raises(kind):
            found[address]
    with pytest.raises(InvalidInput, match="input_sources"):
        found[other]


def test_a_source_that_is_silent_has_a_minute() -> None:
    lines = Lines()

    def silent(name: str, tag: str, fetch: Any) -> None:
        lines.clock.advance(FILE_S)
        fetch.left()

    lines.bucket.read = silent  # type: ignore[method-assign, assignment]
    found = lines.files.fetch([A])
    with pytest.raises(InputSourceFailed, match="a file within 60 seconds; got none"):
        found[A]


def test_a_job_that_is_stopped_waits_for_no_file() -> None:
    lines = Lines()
    asked: list[str] = []

    def silent(name: str, tag: str, fetch: Any) -> None:
        asked.append(name)
        lines.files.give_up()
        fetch.left()

    lines.bucket.read = silent  # type: ignore[method-assign, assignment]
    found = lines.files.fetch([A, B])
    assert asked == ["a"]
    assert lines.waits == []
    for address in (A, B):
        with pytest.raises(InputSourceFailed):
            found[address]


def test_a_line_has_the_bounds_of_a_request() -> None:
    lines = Lines(max_body_bytes=2)
    with pytest.raises(TooLarge, match="2 bytes together"):
        lines.files.fetch([A, B])
    with pytest.raises(TooLarge, match="at most 2 bytes"):
        lines.files.fetch(["s3://photos/c"])["s3://photos/c"]
    with pytest.raises(InvalidInput, match=f"at most {MAX_FILES} files in one line"):
        lines.files.fetch([f"{A}{number}" for number in range(MAX_FILES + 1)])


def test_prefixes_are_those_of_now() -> None:
    lines = Lines()
    assert lines.files.is_on
    assert lines.files.fetch([A])[A] == b"A"
    lines.allow(input_sources=["s3://other/"])
    with pytest.raises(InvalidInput):
        lines.files.fetch([A])[A]
    lines.allow(input_sources=[])
    assert not lines.files.is_on


def test_an_extra_that_is_missing_ends_the_job() -> None:
    def missing(*_: object) -> Any:
        raise ConfigError("expected the extra stores")

    lines = Lines()
    with pytest.raises(ConfigError):
        LineFiles(lambda: lines.rules, missing).fetch([A])
