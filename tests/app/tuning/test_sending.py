"""Real load on a client that answers by itself, and what a tuning is asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner

from batcher.app.cli import main
from batcher.app.simulation.distributions import constant
from batcher.app.simulation.loads import read_load
from batcher.app.tuning.choosing import Setup, text_of
from batcher.app.tuning.curve import Curve, Timing
from batcher.app.tuning.sample_rows import Inputs, Lengths, length_of, request_rows
from batcher.app.tuning.sending import Measured, Sending
from batcher.app.tuning.subject import Subject, find_subject
from batcher.app.tuning.tuning import Tuner, other_setups
from batcher.app.tuning.user_load import UserLoad, read_user_load
from batcher.client.errors import InferenceFailed
from batcher.config.reading import Source, validate
from batcher.config.settings import ServerSettings, load_settings
from batcher.core.spec import ModelSpec, TensorSpec, datatype
from batcher.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
LOG = '{"time":"2026-01-01T00:00:%02d.500+00:00","status":200,"model":"%s","ms":500}\n'


class Answering:
    """Answers in the next turn, and refuses every n-th request."""

    def __init__(self, refused: int = 0) -> None:
        self.rows: list[int] = []
        self._refused = refused

    async def infer(self, model: str, inputs: Any, *, timeout: float | None = None) -> None:
        await asyncio.sleep(0)
        self.rows.append(len(next(iter(inputs.values()))))
        if self._refused and len(self.rows) % self._refused == 0:
            raise InferenceFailed(503, "busy")


def sent(client: Answering, load: UserLoad) -> Measured:
    inputs = Inputs(ModelSpec("m", "1", (), ()), [{"x": np.zeros((1, 2), "f4")}])
    return asyncio.run(Sending(client, "m", load, inputs.next).run(0.2, seed=1))


def test_an_open_loop_sends_the_same_requests_whoever_answers(tmp_path: Path) -> None:
    load = UserLoad(read_load("poisson:500/s"), "")
    first, second = sent(Answering(), load), sent(Answering(), load)
    assert first.requests == second.requests
    assert 50 < first.requests < 150
    assert first.lost == 0


def test_clients_send_one_request_at_a_time_and_pause_when_refused() -> None:
    found = sent(Answering(refused=2), UserLoad(read_load("closed:2"), ""))
    assert found.requests <= 2 * 2 * (0.2 / 0.01 + 2)
    assert found.lost == pytest.approx(0.5, abs=0.1)


def test_requests_have_as_many_rows_as_the_user_says() -> None:
    client = Answering()
    load = UserLoad(read_load("constant:50/s"), "", rows=constant(3))
    found = sent(client, load)
    assert set(client.rows) == {3}
    assert found.answered == pytest.approx(150, rel=0.3)


def test_answers_after_the_deadline_are_not_in_time() -> None:
    found = sent(Answering(), UserLoad(read_load("closed:1"), "", deadline=1e-9))
    assert found.answered > 0
    assert found.in_time == 0


def test_lines_of_the_access_log_are_a_trace(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(LOG % pair for pair in ((3, "m"), (1, "m"), (2, "other"))) + "broken\n")
    (part,) = read_user_load(None, None, log, "m")
    arrivals = list(part.arrivals(0.0, np.random.default_rng(0)))  # type: ignore[union-attr]
    assert [arrival.time for arrival in arrivals] == [0.0, 2.0]
    with pytest.raises(ConfigError, match=r"about model n; .* has none"):
        read_user_load(None, None, log, "n")


def padded(**more: Any) -> TensorSpec:
    return TensorSpec("x", datatype("FP32"), (-1, 2), pad=0, **more)


def test_rows_get_the_lengths_that_the_user_names() -> None:
    mask = TensorSpec("mask", datatype("INT64"), (-1,), mask_of="x")
    spec = ModelSpec("m", "1", (padded(), mask), ())
    sample = {"x": np.arange(6, dtype="f4").reshape(1, 3, 2), "mask": np.ones((1, 3), "i8")}
    short, long = request_rows(spec, sample, [2, 5])
    assert (short["x"].shape, long["x"].shape) == ((1, 2, 2), (1, 5, 2))
    assert "mask" not in short
    assert long["x"][0, 3:].tolist() == sample["x"][0, :2].tolist()
    assert [length_of(spec, row) for row in (short, long)] == [2, 5]


def test_a_text_gets_as_many_words() -> None:
    spec = ModelSpec(
        *("m", "1", (TensorSpec("text", datatype("BYTES"), ()),), ()),
        prepared=(TensorSpec("ids", datatype("INT64"), (-1,), pad=0),),
    )
    (row,) = request_rows(spec, {"text": np.array([b"a bc"], object)}, [3])
    assert row["text"].tolist() == [b"a bc a"]


@pytest.mark.parametrize(
    ("tensor", "lengths", "words"),
    [
        (TensorSpec("x", datatype("FP32"), (-1,)), [], "free axes of x; add `sample: FILE`"),
        (TensorSpec("x", datatype("FP32"), (3,)), [4], "a model whose rows are padded"),
    ],
)
def test_rows_that_nobody_can_make_are_an_error(
    tensor: TensorSpec, lengths: list[int], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        request_rows(ModelSpec("m", "1", (tensor,), ()), None, lengths)


def digits(**settings: Any) -> Subject:
    flags: Mapping[tuple[str, ...], tuple[str, object]] = {
        ("model_repository",): ("test", str(ROOT / "models")),
        ("models", "digits"): ("test", settings),
    }
    return find_subject("digits", load_settings(None, {}, flags), ROOT)


def test_a_server_has_the_model_once_for_each_of_the_settings() -> None:
    subject = digits(max_batch_size=16, device="cpu")
    found = subject.configuration({"a": {}, "b": {"max_batch_size": 8}})
    settings = validate(ServerSettings, Source(found, {(): "test"}))
    assert settings.model_repository is None
    assert [settings.for_model(name).max_batch_size for name in "ab"] == [16, 8]
    assert settings.for_model("a").torch_threads == subject.present.torch_threads
    assert settings.models["a"].path == str(ROOT / "models" / "digits" / "1")


def test_threads_and_instances_are_tried_as_far_as_there_are_cores() -> None:
    subject = digits(torch_threads=3, device="cpu")
    assert other_setups(subject, 4) == [
        {"torch_threads": 1},
        {"torch_threads": 4},
        {"instances": 2, "torch_threads": 2},
    ]
    assert other_setups(digits(torch_threads=1, device="cpu"), 1) == []


@pytest.mark.parametrize(
    ("spent", "tried", "left_out"),
    [
        (1.0, ["torch_threads 1", "instances 2, torch_threads 2"], ["torch_threads 4: too many"]),
        (5.0, ["torch_threads 1"], ["torch_threads 4: too many", "instances 2, torch_threads 2"]),
        (11.0, [], ["torch_threads 1", "torch_threads 4", "instances 2, torch_threads 2"]),
    ],
    ids=["time for all", "time for threads", "no time"],
)
def test_threads_are_tried_however_long_measuring_has_taken(
    spent: float, tried: list[str], left_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("batcher.app.tuning.tuning.perf_counter", lambda: now[0])
    monkeypatch.setattr("batcher.app.tuning.tuning.cores", lambda: 4)
    subject, user = digits(torch_threads=3, device="cpu"), UserLoad((), "")
    # of 10 s, 3.5 s are for measuring
    tuner = Tuner(subject, user, Lengths(), 10.0, cast("Any", None), lambda text: None)

    async def measured(changes: Any = None, present: Any = None) -> Setup:
        now[0] = spent
        if changes == {"torch_threads": 4}:
            raise ConfigError("too many")
        return Setup(changes or {}, Curve((Timing(1, (1.0,)),), ""))

    monkeypatch.setattr(tuner, "_present_setup", measured)
    monkeypatch.setattr(tuner, "_other_setup", measured)
    setups = asyncio.run(tuner._setups())
    assert [text_of(setup.changes) for setup in setups] == ["present settings", *tried]
    words = [text if "too many" in text else text.partition(":")[0] for text in tuner._left_out]
    assert words == left_out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["digitz", "--rate", "5"], r"a model of the configuration \(.*digits.*\)"),
        (["digits"], "--rate 500 for requests/s, --clients 32"),
        (["digits", "--trace", "nowhere.csv"], "expected a file; there is no nowhere.csv"),
        (["digits", "--rate", "5", "--deadline", "5"], "expected a time such as 5ms"),
        (["digits", "--rate", "5", "--rows", "0"], "whole numbers of 1 or more"),
        (["models/digits", "--rate", "5", "--write"], "got the path models/digits"),
        (["models", "--rate", "5"], "got a repository of models"),
    ],
)
def test_a_mistake_is_told_before_anything_is_loaded(
    words: list[str], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(main, ["tune", *words])
    assert done.exit_code == 1
    assert re.search(error, done.output), done.output
