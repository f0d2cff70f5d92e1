"""An exception that lets go of what its frames hold."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from traceback import format_exception

import pytest

from batcher.core.frames import clear_all_frames


class Body:
    """What must not stay; it holds the exception, as parsers do."""

    error: Exception


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def parse(bodies: list[weakref.ref[Body]]) -> None:
    body = Body()
    bodies.append(weakref.ref(body))
    body.error = ValueError("no form")
    raise body.error


def decode(bodies: list[weakref.ref[Body]]) -> None:
    try:
        parse(bodies)
    except ValueError as err:
        raise TypeError("no body") from err


@pytest.mark.usefixtures("no_collector")
def test_what_frames_of_an_error_and_of_its_causes_hold_is_let_go_of_at_once() -> None:
    bodies: list[weakref.ref[Body]] = []
    with pytest.raises(TypeError) as caught:
        decode(bodies)
    before = format_exception(caught.value)
    assert bodies[0]() is not None
    clear_all_frames(caught.value)
    assert bodies[0]() is None
    assert format_exception(caught.value) == before


def test_errors_that_lead_to_each_other_are_looked_at_once() -> None:
    first, second = ValueError(), TypeError()
    first.__context__, second.__context__ = second, first
    clear_all_frames(first)
