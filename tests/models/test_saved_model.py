"""A SavedModel without trust, without TensorFlow, or for a GPU: refused with what to do.

That it answers as TensorFlow does shows `tests/integration/models/test_saved_model.py`.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from batcher.batching.worker import Worker
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.workers.load_turns import LoadTurns
from batcher.workers.making import make_workers
from batcher.workers.process.worker import ProcessWorker
from batcher.workers.thread import InferenceThread
from tests.support.crossing import Loop
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders
from tests.support.saved_models import PLAIN


def written(folders: Folders) -> ModelDefinition:
    return folders.write("format: savedmodel\n", {"net/saved_model.pb": PLAIN})


def workers(definition: ModelDefinition, load: Any = None) -> list[Worker]:
    loop = Loop()
    settings = ModelSettings(worker="thread", instances=2, torch_threads=1)
    tell = lambda text: None  # noqa: E731
    cross, turns = loop.call_from_thread, LoadTurns(1)
    return make_workers(definition, settings, load, tell, cross, loop.clock, turns)


def test_each_instance_has_a_process_of_its_own_whatever_the_settings_say(folders: Folders) -> None:
    definition = written(folders)
    assert [type(each) for each in workers(definition)] == [ProcessWorker, ProcessWorker]
    pmml = folders.define("format: pmml\nfile: net.pmml", {"net.pmml": ""}, name="other")
    assert [type(each) for each in workers(pmml)] == [InferenceThread, InferenceThread]


def test_without_trust_it_is_not_read(folders: Folders) -> None:
    words = "expected `trusted: true`; got net, a SavedModel, a program of TensorFlow that can read"
    with pytest.raises(ModelLoadError, match=words):
        folders.load(written(folders))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "expected the package tensorflow; got none: `pip install tensorflow-cpu`, or conv"),
        (SimpleNamespace(__version__="1.15.5"), r"expected TensorFlow 2; got 1\.15\.5: .*tf2onnx"),
        (SimpleNamespace(), "expected TensorFlow 2; got a package without a version"),
    ],
)
def test_without_tensorflow_what_to_install_and_the_converter_are_named(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, module: Any, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    with pytest.raises(ModelLoadError, match=words):
        folders.load(written(folders), trusted=True)


def test_a_gpu_is_refused_with_the_converter(folders: Folders) -> None:
    # `auto` means the CPU; a device that the settings name is no preference.
    definition = written(folders)
    with pytest.raises(ModelLoadError, match="expected `device: cpu`; got cuda:0: a SavedModel"):
        folders.load(definition, trusted=True, device="cuda:0")
