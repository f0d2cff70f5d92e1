"""Calls with very many entries of metadata, which some clients can send."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from batcher.frontends.grpc.metadata_limit import MAX_METADATA_ENTRIES, MetadataLimit
from tests.frontends.grpc.conftest import Aborted, Context, run


def handler(count: int) -> Any:
    details = SimpleNamespace(method="/s/M", invocation_metadata=(("a", ""),) * count)
    return MetadataLimit().service(details)


def test_a_call_within_the_limit_is_left_to_the_handlers_behind() -> None:
    assert handler(0) is None
    assert handler(MAX_METADATA_ENTRIES) is None


def test_a_call_beyond_the_limit_is_refused_with_both_numbers_without_another_look() -> None:
    class Unread(Context):
        def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
            raise AssertionError("the library makes all entries anew")

    found = handler(MAX_METADATA_ENTRIES + 1)
    with pytest.raises(Aborted) as caught:
        run(lambda: found.stream_stream(None, Unread()))
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.text == "expected at most 512 entries of metadata; got 513"
