"""Values as they stand in a Redis: only what was sealed for a key is a value of that key."""

from __future__ import annotations

import pytest

from batcher.serving.caching.redis.sealing import BEGIN_BYTES, Sealing

BODY = b"outputs, many of them"
SECRET = "what nobody else knows"


@pytest.fixture(params=[None, SECRET])
def sealing(request: pytest.FixtureRequest) -> Sealing:
    return Sealing(request.param)


def test_a_value_comes_back_with_its_time(sealing: Sealing) -> None:
    value = sealing.seal(b"key", BODY, 12.5)
    assert sealing.open(b"key", value) == 12.5
    assert value[BEGIN_BYTES:] == BODY
    assert BEGIN_BYTES % 8 == 0


def test_a_value_that_was_cut_or_changed_anywhere_is_none(sealing: Sealing) -> None:
    value = sealing.seal(b"key", BODY, 12.5)
    wrong = [value[:length] for length in range(len(value))]
    wrong += [value + b"\0", b"", b"\0" * len(value), BODY]
    for place in range(len(value)):
        changed = bytearray(value)
        changed[place] ^= 1
        wrong.append(bytes(changed))
    for each in wrong:
        with pytest.raises(ValueError, match=r"^(too short|of another \w+)$"):
            sealing.open(b"key", each)


def test_a_value_of_another_key_is_none(sealing: Sealing) -> None:
    with pytest.raises(ValueError, match="digest"):
        sealing.open(b"other", sealing.seal(b"key", BODY, 1.0))


@pytest.mark.parametrize("other", [None, "", "what nobody else know"])
def test_a_value_without_the_secret_is_none(other: str | None) -> None:
    with pytest.raises(ValueError, match="digest"):
        Sealing(SECRET).open(b"key", Sealing(other).seal(b"key", BODY, 1.0))
