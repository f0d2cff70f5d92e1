"""`batcher.testing`: a model in a test, whose batches run when the test says so."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from batcher.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidInput,
    ModelError,
    ModelLoadError,
)
from batcher.testing import ModelInProcess, batcher_model

assert batcher_model  # a fixture, by its name

Load = Callable[..., ModelInProcess]

DEFINITION = """
format: python
class: code:Model
inputs: [{name: text, dtype: BYTES, shape: []}]
outputs: [{name: letters, dtype: INT64, shape: []}]
"""
PREDICT = """
class Model:
    def predict(self, inputs):
        if b"boom" in inputs["text"].tolist():
            raise ValueError("boom")
        return {"letters": [len(text) for text in inputs["text"]]}
"""
HOOKS = """
    def preprocess(self, inputs):
        if inputs["text"][0] == b"nothing":
            raise KeyError("nothing")
        return inputs

    def postprocess(self, outputs):
        return {"letters": outputs["letters"] * 10}
"""


def folder(tmp_path: Path, source: str, definition: str = DEFINITION) -> Path:
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.yaml").write_text(definition)
    (version / "code.py").write_text(dedent(source))
    return tmp_path / "m"


def test_a_request_is_answered_as_the_server_would(batcher_model: Load, tmp_path: Path) -> None:
    model = batcher_model(folder(tmp_path, PREDICT))
    assert model.predict({"text": "one"})["letters"].tolist() == [3]
    assert model.predict({"text": ["a", b"bc"]})["letters"].tolist() == [1, 2]
    assert model.predict({"text": np.array([b"abc"], object)})["letters"].tolist() == [3]
    assert model.post(b"four", "text/plain")["letters"].tolist() == [4]
    assert model.post(b'{"inputs": ["ab"]}', "application/json")["letters"].tolist() == [2]
    with pytest.raises(InvalidInput, match="expected inputs 'text'; got 'txt'"):
        model.predict({"txt": "one"})


@pytest.mark.parametrize("source", [PREDICT, PREDICT + HOOKS], ids=["plain", "with hooks"])
def test_requests_that_wait_share_the_batch_that_a_step_runs(
    batcher_model: Load, tmp_path: Path, source: str
) -> None:
    model = batcher_model(folder(tmp_path, source), max_batch_size=2)
    answers = [model.submit({"text": text}) for text in ("a", "bc", "def")]
    assert not any(answer.is_there for answer in answers)
    assert (model.step(), model.step(), model.step()) == (2, 1, 0)
    factor = 10 if source is not PREDICT else 1
    assert [answer.outputs["letters"].item() // factor for answer in answers] == [1, 2, 3]
    assert model.batches == [2, 1]


def test_one_bad_request_harms_no_other_of_its_batch(batcher_model: Load, tmp_path: Path) -> None:
    model = batcher_model(folder(tmp_path, PREDICT))
    good, bad = model.submit({"text": "good"}), model.submit({"text": "boom"})
    while model.step():
        pass
    assert good.outputs["letters"].item() == 4
    with pytest.raises(ModelError, match="ValueError: boom") as raised:
        _ = bad.outputs
    assert raised.value.__notes__ == [f"raised in {tmp_path}/m/1/code.py:5"]


def test_what_a_hook_raises_is_the_answer(batcher_model: Load, tmp_path: Path) -> None:
    model = batcher_model(folder(tmp_path, PREDICT + HOOKS))
    with pytest.raises(ModelError, match="KeyError: 'nothing'"):
        model.predict({"text": "nothing"})


def test_time_passes_when_the_test_says_so(batcher_model: Load, tmp_path: Path) -> None:
    model = batcher_model(folder(tmp_path, PREDICT))
    running, late = model.submit({"text": "a"}), model.submit({"text": "b"}, timeout_s=5)
    model.advance(6)
    while model.step():
        pass
    assert running.outputs["letters"].item() == 1
    with pytest.raises(DeadlineExceeded):
        _ = late.outputs


def test_a_request_that_is_given_up_leaves_the_batch(batcher_model: Load, tmp_path: Path) -> None:
    model = batcher_model(folder(tmp_path, PREDICT))
    kept, gone = model.submit({"text": "a"}), model.submit({"text": "b"})
    gone.cancel()
    assert (model.step(), kept.outputs["letters"].item()) == (1, 1)


def test_a_model_that_does_not_load_says_why(batcher_model: Load, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no disk.*code\.py:4"):
        batcher_model(folder(tmp_path, PREDICT.replace("    def", LOAD + "    def", 1)))
    with pytest.raises(ConfigError):
        batcher_model(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="max_batch_size: expected"):
        batcher_model(tmp_path / "m", max_batch_size=0)


def test_of_a_broken_model_pytest_shows_the_lines_of_the_test_and_of_the_model_alone(
    batcher_model: Load, tmp_path: Path
) -> None:
    head = "    def predict(self, inputs):\n"
    code = PREDICT.replace(head, f"{head}        1 / 0\n")
    with pytest.raises(ModelLoadError, match="division by zero") as raised:
        batcher_model(folder(tmp_path, code))
    visible = [entry for entry in raised.traceback if not entry.ishidden(raised)]
    assert {Path(entry.path).name for entry in visible} == {"test_testing.py"}
    cause = raised.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_filename == f"{tmp_path}/m/1/code.py"


def test_of_outputs_against_the_contract_the_error_names_model_yaml(
    batcher_model: Load, tmp_path: Path
) -> None:
    code = "class Model:\n    def predict(self, inputs):\n        return {'letters': [1.5] * 3}\n"
    with pytest.raises(ModelLoadError) as raised:
        batcher_model(folder(tmp_path, code))
    assert raised.value.__notes__ == [f"what is expected stands in {tmp_path}/m/1/model.yaml"]


LOAD = '    def load(self, device):\n        raise OSError("no disk")\n\n'


def test_an_answer_that_waits_for_a_batch_says_how_to_run_one(
    batcher_model: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.testing.HOOK_PATIENCE_S", 0.01)
    answer: Any = batcher_model(folder(tmp_path, PREDICT)).submit({"text": "a"})
    with pytest.raises(TimeoutError, match="which `step` runs"):
        _ = answer.outputs


def test_a_single_file_is_warmed_up_and_checked_with_its_sample(
    batcher_model: Load, tmp_path: Path
) -> None:
    file = tmp_path / "m.py"
    file.write_text(
        "import batcher\n\n@batcher.model(inputs={'text': 'BYTES'}, sample={'text': 'ab'})\n"
        "class Model:\n    def predict(self, inputs):\n        assert all(inputs['text'])\n"
        "        return {'letters': [len(text) for text in inputs['text']]}\n"
    )
    model = batcher_model(file)
    assert model.predict({"text": "one"})["letters"].tolist() == [3]
    assert model.sample == {"text": [b"ab"]}


def test_what_a_model_has_opened_is_closed_with_it(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    model = ModelInProcess(folder(tmp_path, PREDICT + HOOKS))
    assert model.predict({"text": "one"})["letters"].tolist() == [30]
    hooks = set(threading.enumerate()) - before
    assert hooks, "hooks run on threads of the pool"
    model.close()
    broken = folder(
        tmp_path / "broken", "class Model:\n    def load(self, device):\n        1 / 0\n"
    )
    with pytest.raises(ModelLoadError):
        ModelInProcess(broken)
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(30)
    assert not any(thread.is_alive() for thread in left)
    assert multiprocessing.active_children() == []
