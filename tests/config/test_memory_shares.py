"""Sizes that nobody has set are smaller in a container with little memory."""

from __future__ import annotations

import pytest

from batcher.config import settings as settings_module
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from tests.config.conftest import Load

GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def one_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process run in a container of 1 GiB."""
    monkeypatch.setattr(settings_module, "_memory_limit", lambda: GIB)


def sizes(found: ServerSettings) -> list[int]:
    queue = found.for_model("m").max_queue_bytes
    each = [found.max_buffer_bytes, found.cpu_pool_bytes, found.max_decoding_bytes, queue]
    return [size // MIB for size in each]


@pytest.mark.parametrize("limit", [None, 4 * GIB, 64 * GIB])
def test_where_there_is_memory_enough_the_defaults_hold(
    load: Load, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(settings_module, "_memory_limit", lambda: limit)
    assert sizes(load("max_buffer_bytes: null\n")) == sizes(ServerSettings()) == [512, *[256] * 3]


@pytest.mark.usefixtures("one_gib")
def test_a_small_container_has_smaller_ones(load: Load) -> None:
    expected = [128, 64, 64, 64]
    assert sizes(load("")) == expected
    nulls = "max_buffer_bytes: null\ncpu_pool_bytes: null\ndefaults: {max_queue_bytes: null}\n"
    assert sizes(load(nulls)) == expected


@pytest.mark.usefixtures("one_gib")
def test_a_size_that_somebody_has_set_stays(load: Load) -> None:
    text = "max_buffer_bytes: 512MiB\nmodels: {m: {max_queue_bytes: 256MiB}}\n"
    assert sizes(load(text)) == [512, 64, 64, 256]


@pytest.mark.usefixtures("one_gib")
def test_defaults_that_are_no_mapping_are_an_error_as_ever(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml:1: defaults: expected"):
        load("defaults: 5\n")
