"""SavedModels answer as TensorFlow does: alone, in batches, and through a process of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from batcher.config.model_file import load_model_definition
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel
from tests.end_to_end.processes import Process, started
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("needs tensorflow: `pip install tensorflow-cpu`", allow_module_level=True)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "torch")  # TensorFlow imports Keras, for other tests as well
import tensorflow as tf  # after its variable

RNG = np.random.default_rng(0)
START_LIMIT_S = 300.0
"""Seconds for a start that imports TensorFlow, on a machine that is busy."""


def spec(dtype: Any, *shape: int | None, name: str) -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


def words(folder: Path) -> dict[str, Array]:
    """Write a model of numbers, of rows of any length, and of texts."""
    table = tf.Variable(RNG.normal(size=(100, 3)).astype("f4"))

    class Model(tf.Module):  # type: ignore[misc]  # of a library without types
        def __init__(self) -> None:
            self.table = table

        @tf.function(
            input_signature=[
                spec(tf.int64, None, None, name="ids"),
                spec(tf.string, None, name="text"),
                spec(tf.bfloat16, None, 2, name="half"),
            ]
        )
        def run(self, ids: Any, text: Any, half: Any) -> dict[str, Any]:
            return {
                "scores": tf.reduce_sum(tf.gather(self.table, ids), 1),
                "upper": tf.strings.upper(text, "utf-8"),
                "half": half * 2,
            }

    model = Model()
    tf.saved_model.save(model, str(folder), signatures=model.run)
    texts = np.array(["né", "", "abc", "z"]).astype(object)
    half = np.array([[0x3F80, 0x4000]] * 4, "<u2")  # bfloat16 of 1 and 2
    ids = RNG.integers(0, 100, (4, 6))
    return {"ids": ids, "text": np.array([each.encode() for each in texts], object), "half": half}


def layers(folder: Path) -> dict[str, Array]:
    """Write a small convolution with two inputs."""
    kernel = tf.Variable(RNG.normal(size=(3, 3, 1, 4)).astype("f4"))
    last = tf.Variable(RNG.normal(size=(7, 3)).astype("f4"))

    class Model(tf.Module):  # type: ignore[misc]  # of a library without types
        def __init__(self) -> None:
            self.kernel, self.last = kernel, last

        @tf.function(
            input_signature=[
                spec(tf.float32, None, 8, 8, 1, name="image"),
                spec(tf.float32, None, 3, name="extra"),
            ]
        )
        def run(self, image: Any, extra: Any) -> dict[str, Any]:
            found = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, self.kernel, 1, "SAME")), [1, 2])
            return {"scores": tf.nn.softmax(tf.concat([found, extra], 1) @ self.last)}

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"score": model.run})
    return {
        "image": RNG.random((4, 8, 8, 1), np.float32),
        "extra": RNG.random((4, 3), np.float32),
    }


MAKERS: dict[str, Callable[[Path], dict[str, Array]]] = {"words": words, "layers": layers}


def by_library(folder: Path, rows: dict[str, Array]) -> dict[str, Array]:
    """Return what TensorFlow itself answers."""
    loaded = tf.saved_model.load(str(folder))
    (call,) = loaded.signatures.values()
    given = {
        name: tf.bitcast(each, tf.bfloat16) if each.dtype == "<u2" else tf.constant(each)
        for name, each in rows.items()
    }
    return {
        name: (tf.bitcast(each, tf.uint16) if each.dtype == tf.bfloat16 else each).numpy()
        for name, each in call(**given).items()
    }


def loaded(folders: Folders, folder: Path) -> CheckedModel:
    return folders.load(load_model_definition("m", "1", folder), trusted=True)


def same(found: dict[str, Array], right: dict[str, Array], rows: slice = slice(None)) -> None:
    assert found.keys() == right.keys()
    for name, array in found.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, right[name][rows], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(array, right[name][rows])


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_answers_as_tensorflow_alone_and_in_batches(
    folders: Folders, tmp_path: Path, name: str
) -> None:
    rows = MAKERS[name](tmp_path / "1")
    checked, right = loaded(folders, tmp_path / "1"), by_library(tmp_path / "1", rows)
    same(answers(checked, **rows), right)
    for place in range(4):
        one = slice(place, place + 1)
        same(answers(checked, **{key: each[one] for key, each in rows.items()}), right, one)


def test_a_function_of_one_row_runs_one_row_at_a_time(folders: Folders, tmp_path: Path) -> None:
    class Model(tf.Module):  # type: ignore[misc]  # of a library without types
        @tf.function(input_signature=[spec(tf.float32, 1, 4, name="x")])
        def run(self, x: Any) -> dict[str, Any]:
            return {"y": -x}

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=model.run)
    checked = loaded(folders, tmp_path / "1")
    assert checked.largest(64) == 1
    assert answers(checked, x=np.ones((1, 4), "<f4"))["y"].tolist() == [[-1.0] * 4]


def test_variables_that_are_damaged_fail_the_load_with_the_reason(
    folders: Folders, tmp_path: Path
) -> None:
    layers(tmp_path / "1")
    (file,) = (tmp_path / "1" / "variables").glob("variables.data-*")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(Exception, match=r"model 'm' version 1: .*Read less bytes than requested"):
        loaded(folders, tmp_path / "1")


THREADS = """
import sys
from pathlib import Path
from batcher.config.model_file import load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.models.loading import load_model
settings = ModelSettings(trusted=True, torch_threads=2, warmup=False)
load_model(load_model_definition("m", "1", Path(sys.argv[1])), settings, lambda text: None)
import tensorflow
of = tensorflow.config.threading
print(of.get_intra_op_parallelism_threads(), of.get_inter_op_parallelism_threads())
"""


def test_tensorflow_has_the_threads_of_the_models_share(tmp_path: Path) -> None:
    layers(tmp_path / "1")
    # In a process of its own, since this one has run TensorFlow already.
    command = [sys.executable, "-c", THREADS, str(tmp_path / "1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["2", "1"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, dict[str, Array]]]:
    """Serve `layers` as its folder stands."""
    folder = tmp_path_factory.mktemp("server")
    rows = layers(folder / "net")
    right = by_library(folder / "net", rows)
    flags = ("--set", "models.net.trusted=true", "--set", "models.net.torch_threads=1")
    with started(folder, str(folder / "net"), *flags, ready=False) as process:
        process.wait_ready(START_LIMIT_S)
        yield process, {**rows, **right}


def test_a_server_runs_it_in_a_process_of_its_own_and_in_batches(
    server: tuple[Process, dict[str, Array]],
) -> None:
    process, rows = server

    def ask(number: int) -> list[float]:
        body = {"inputs": {key: [rows[key][number % 4].tolist()] for key in ("image", "extra")}}
        request = Request(
            f"{process.address}/models/net/predict",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as answer:
            found: list[float] = json.load(answer)["outputs"]["scores"][0]
            return found

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, range(400)))
    for number, scores in enumerate(found):
        np.testing.assert_allclose(scores, rows["scores"][number % 4], rtol=1e-5, atol=1e-6)
    assert "a SavedModel is served in a process of its own" in process.errors
    assert b"libtensorflow" not in Path(f"/proc/{process.pid}/maps").read_bytes()
    with urlopen(f"{process.address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    (batches,) = [line for line in lines if line.startswith("batcher_batch_size_count{")]
    assert float(batches.split()[-1]) < 400, "requests share batches"
