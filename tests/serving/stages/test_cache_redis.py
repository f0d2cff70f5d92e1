"""Answers that several servers share: each in memory, with a clock of its own and one Redis."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from twisted.python.failure import Failure

from batcher.config.model_settings import ModelOverrides
from batcher.core.ragged import ragged
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Labels
from batcher.errors import ConfigError, QueueFull
from batcher.models.version_files import SeenFiles
from batcher.serving.caching.packing import pack
from batcher.serving.caching.redis.sealing import Sealing
from batcher.serving.caching.redis.store import MAX_VALUE_BYTES, WAIT_S
from tests.support.http import MemoryServer
from tests.support.models import RecordingModel, double, model_spec, rows, tensor
from tests.support.redis import MemoryRedis

ADDRESS = "redis://:sesame@redis.example"
OPENING = "batcher.serving.caching.redis.opening"
CONTENT = "batcher.serving.caching.content"


@pytest.fixture
def redis() -> Iterator[MemoryRedis]:
    made = MemoryRedis()
    made.password = b"sesame"
    with patch(f"{OPENING}.connector", lambda address, clock: made.at(clock)):
        yield made


def server(
    redis: MemoryRedis,
    content: Any = b"files",
    predict: Any = double,
    spec: Any = None,
    **cache: Any,
) -> MemoryServer:
    """Return a server that is connected, whose version has `content`."""

    def digest(seen: SeenFiles) -> bytes:
        if isinstance(content, Exception):
            raise content
        found: bytes = content
        return found

    settings = ModelOverrides(cache={"store": ADDRESS, "ttl_s": 100, **cache})
    with (
        patch(f"{CONTENT}.seen_files", lambda _: SeenFiles(Path(), {})),
        patch(f"{CONTENT}.content_digest", digest),
    ):
        memory = MemoryServer(RecordingModel(spec or model_spec(), predict), models={"m": settings})
        memory.turn()
    ask(memory, 99.0)  # has the connection made
    memory.model.batches.clear()
    return memory


def ask(memory: MemoryServer, *values: Any, **parameters: Any) -> Any:
    """Return the answer, or the error, once there is one."""
    found: list[Any] = []
    inputs = values[0] if values and isinstance(values[0], dict) else {"x": rows(*values)}
    memory.server.infer("m", inputs, "", Parameters(**parameters)).addBoth(found.append)
    for _ in range(3):
        memory.work()
    return found[0] if found else None


def said(answer: InferenceResponse) -> tuple[list[float], str]:
    """Return the first number of each row, and where they are from."""
    return [float(row[0]) for row in answer.outputs["y"]], answer.origin


def looks(memory: MemoryServer) -> dict[str, int]:
    counts = memory.server.metrics.caches.of("m", "1")
    return {name: count for name, count in counts.redis.looks.items() if name != "away"}


def test_a_server_finds_what_another_has_answered(redis: MemoryRedis) -> None:
    one, other = server(redis), server(redis)
    assert said(ask(one, 1.0, 2.0)) == ([2, 4], "")
    found = ask(other, 1.0, 2.0)
    assert said(found) == ([2, 4], "hit")
    assert not found.outputs["y"].flags.writeable
    assert other.model.batches == []
    sent = len(redis.commands)
    assert said(ask(other, 1.0, 2.0)) == ([2, 4], "hit")  # from its own memory
    assert len(redis.commands) == sent
    assert looks(one) == {"miss": 1}
    assert looks(other) == {"hit": 1}
    counts = other.server.metrics.caches.of("m", "1")
    assert counts.outcomes == {"hit": 2, "joined": 0, "miss": 1, "skipped": 0}
    one.check_nothing_is_left()


@pytest.mark.parametrize(
    "other",
    [
        {"content": b"other files"},
        {"min_score": 0.5},
        {"secret": "a" * 16},
        # As settings may say of one and the same file.
        {"spec": model_spec(outputs=(tensor("y", labels=Labels(tuple("abcd"))),))},
    ],
)
def test_servers_that_would_answer_otherwise_share_nothing(
    redis: MemoryRedis, other: dict[str, Any]
) -> None:
    first, second = server(redis), server(redis, **other)
    ask(first, 1.0)
    assert ask(second, 1.0).origin == ""
    assert said(ask(first, 1.0)) == ([2], "hit")


def test_a_version_whose_files_changed_meanwhile_shares_nothing(redis: MemoryRedis) -> None:
    memory = server(redis, OSError("changed"))
    ask(memory, 1.0)
    assert ask(memory, 1.0).origin == "hit"
    assert redis.commands == []
    assert redis.wires == []


def test_an_answer_counts_here_for_the_rest_of_its_time(redis: MemoryRedis) -> None:
    one, other = server(redis), server(redis)
    now = 50_000.0
    for memory in (one, other):
        (version,) = memory.server
        version._version_stages[0]._redis._wall_s = lambda: now  # type: ignore[attr-defined]
    ask(one, 1.0)
    now += 90.0
    assert ask(other, 1.0).origin == "hit"
    other.wait(9)
    assert ask(other, 1.0).origin == "hit"
    now += 10.0
    other.wait(1)
    assert ask(other, 1.0).origin == ""  # though Redis, whose clock stands still, has it yet


TRUE = pack({"y": np.full((1, 4), 7, "<f4")})
WRONG = {
    "of nobody": lambda key, value: Sealing("another secret").seal(key, TRUE, 1e12),
    "without a secret": lambda key, value: Sealing(None).seal(key, TRUE, 1e12),
    "cut": lambda key, value: value[:-1],
    "empty": lambda key, value: b"\0",
    "of another key": lambda key, value: Sealing("s" * 16).seal(b"other", TRUE, 1e12),
    "too long": lambda key, value: value + bytes(MAX_VALUE_BYTES),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_value_that_the_server_has_not_sealed_is_no_answer(redis: MemoryRedis, kind: str) -> None:
    one, other = server(redis, secret="s" * 16), server(redis, secret="s" * 16)
    ask(one, 1.0)
    for key in redis.values:
        redis.values[key] = WRONG[kind](key, redis.values[key])
    assert said(ask(other, 1.0)) == ([2], "")
    assert looks(other) == {"wrong": 1}


ODD = {
    "no outputs at all": b"",
    "no head": b"\xff" * 16,
    "a head that is no JSON": (4).to_bytes(4, "little") + b"[[[[",
    "a head too long": pack({"y" * 20_000: np.ones((1, 4), "<f4")}),
    "another name": pack({"z": np.ones((1, 4), "<f4")}),
    "another dtype": pack({"y": np.ones((1, 4), "<f8")}),
    "another shape": pack({"y": np.ones((1, 5), "<f4")}),
    "objects": pack({"y": np.array([[b"a"] * 4], object)}),
    "no rows": pack({"y": np.ones((0, 4), "<f4")}),
    "fewer elements than it says": TRUE[:-4],
}


@pytest.mark.parametrize("kind", ODD)
def test_without_a_secret_a_value_that_is_well_made_must_fit_the_model(
    redis: MemoryRedis, kind: str
) -> None:
    one, other = server(redis), server(redis)
    ask(one, 1.0)
    for key in redis.values:
        redis.values[key] = Sealing(None).seal(key, ODD[kind], 1e12)
    assert said(ask(other, 1.0)) == ([2], "")
    assert looks(other) == {"wrong": 1}


def _head(form: str, shape: list[int], nbytes: int) -> bytes:
    """Return the head of a value that says it has one output, without its elements."""
    text = dumps([["y", form, "<f4", shape, nbytes]]).encode()
    text += b" " * (-(len(text) + 4) % 8)
    return len(text).to_bytes(4, "little") + text


ENDLESS = {
    "a thousand million rows without elements": _head("array", [10**9, 0], 0),
    "the same, ragged": _head("rows", [10**9, 0], 0),
    "one row of as many lists": _head("rows", [1, 2], 16) + np.array([10**9, 0], "<u8").tobytes(),
    "rows of another dtype": pack({"y": ragged([np.ones((1, 2)), np.ones((2, 2))])}),
    "rows of other axes": pack({"y": ragged([np.ones(1, "<f4"), np.ones(2, "<f4")])}),
    "objects": pack({"y": np.array([[[b"a"]]], object)}),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_no_value_that_somebody_makes_up_is_endless_where_axes_are_free(
    redis: MemoryRedis, kind: str
) -> None:
    spec = model_spec(outputs=(tensor("y", "FP32", (-1, -1), is_ragged=True),))
    made = partial(server, redis, predict=lambda inputs: {"y": inputs["x"][:, None]}, spec=spec)
    one, other = made(), made()
    assert ask(one, 1.0).outputs["y"].shape[:2] == (1, 1)
    for key in redis.values:
        redis.values[key] = Sealing(None).seal(key, ENDLESS[kind], 1e12)

    assert ask(other, 1.0).origin == ""
    assert looks(other) == {"wrong": 1}


def test_rows_of_unequal_lengths_are_found_by_others(redis: MemoryRedis) -> None:
    spec = model_spec(outputs=(tensor("y", "FP32", (-1, -1), is_ragged=True),))

    def predict(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"y": ragged([np.ones((int(row[0]), 0), "<f4") for row in inputs["x"]])}

    one, other = (server(redis, predict=predict, spec=spec) for _ in range(2))
    ask(one, 2.0, 640.0)

    found = ask(other, 2.0, 640.0)

    assert found.origin == "hit"
    assert [row.shape for row in found.outputs["y"]] == [(2, 0), (640, 0)]


def test_equal_requests_look_once_and_share_what_is_found(redis: MemoryRedis) -> None:
    one, other = server(redis), server(redis)
    ask(one, 1.0)
    found: list[Any] = []
    waiting = [other.server.infer("m", {"x": rows(1.0)}).addBoth(found.append) for _ in range(5)]
    waiting[1].cancel()
    other.turn()
    origins = [each.origin for each in found if not isinstance(each, Failure)]
    assert origins == ["hit", *["joined"] * 3]
    assert looks(other) == {"hit": 1}


def test_a_slow_redis_costs_five_milliseconds(redis: MemoryRedis) -> None:
    memory = server(redis)
    redis.delay = None
    found: list[Any] = []
    memory.server.infer("m", {"x": rows(1.0)}).addBoth(found.append)
    memory.clock.advance(WAIT_S - 0.001)
    memory.work()
    assert memory.model.batches == []
    memory.clock.advance(0.001)
    memory.work()
    assert said(found[0]) == ([2], "")


def test_a_request_that_is_cancelled_while_it_looks_never_runs(redis: MemoryRedis) -> None:
    memory = server(redis)
    redis.delay = WAIT_S / 2
    waiting = memory.server.infer("m", {"x": rows(1.0)})
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    memory.clock.advance(WAIT_S)
    memory.work()
    assert memory.model.batches == []
    redis.delay = 0.0
    assert said(ask(memory, 3.0)) == ([6], "")
    memory.check_nothing_is_left()


def test_an_answer_that_is_large_goes_through_the_pool(redis: MemoryRedis) -> None:
    spec = model_spec(outputs=(tensor("y", shape=(30_000,)),))

    def predict(inputs: Any) -> dict[str, Any]:
        return {"y": np.repeat(inputs["x"][:, :1], 30_000, axis=1)}

    one, other = (server(redis, predict=predict, spec=spec) for _ in range(2))
    ask(one, 1.0)
    found = ask(other, 1.0)
    assert found.origin == "hit"
    assert found.outputs["y"].tobytes() == np.ones((1, 30_000), "<f4").tobytes()
    with patch.object(other.server.pools.cpu, "run", side_effect=QueueFull("full")):
        ask(one, 2.0)
        assert ask(other, 2.0).origin == ""


def test_a_server_that_ends_lets_its_connection_go(redis: MemoryRedis) -> None:
    memory = server(redis)
    assert len(redis.open_wires) == 1
    (version,) = memory.server
    memory.server.unload(version)
    memory.turn()
    assert redis.open_wires == []


def test_without_the_extra_the_model_is_refused_with_what_installs_it(redis: MemoryRedis) -> None:
    with (
        patch(f"{CONTENT}.find_spec", lambda name: None),
        pytest.raises(ConfigError, match=r"cache.store: .*\[redis\]") as refused,
    ):
        server(redis)
    assert "sesame" not in str(refused.value)
