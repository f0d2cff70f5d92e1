"""What decoding and `preprocess` make of inputs is kept, for whoever makes the same of them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.config.model_settings import ModelOverrides
from batcher.core.ragged import ragged
from batcher.core.request import Parameters
from batcher.core.spec import ImageSpec
from batcher.errors import ModelError, QueueFull
from batcher.models.version_files import SeenFiles
from batcher.serving.cache_metrics import CacheCounts
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.models import RecordingModel, double, model_spec, rows, tensor

CONTENT = "batcher.serving.caching.content"
Prepare = Callable[[Any], Any]


class Hooked(RecordingModel):
    """A model whose `preprocess` is counted; its files have `content`."""

    def __init__(
        self,
        name: str,
        prepare: Prepare,
        content: bytes = b"hook",
        predict: Any = double,
        **spec: Any,
    ) -> None:
        super().__init__(model_spec(name=name, **spec), predict)
        self.content, self.calls = content, 0
        self._prepare = prepare

    def preprocess(self, inputs: Any) -> Any:  # type: ignore[override]
        self.calls += 1
        return self._prepare(inputs)


def add_one(inputs: Any) -> Any:
    return {"x": inputs["x"] + 1}


def server(*models: RecordingModel, **cache: Any) -> MemoryServer:
    settings = ModelOverrides(cache={"inputs": True, **cache}, isolate=False)
    contents = {model.spec.name: getattr(model, "content", b"") for model in models}

    def seen(definition: Any) -> SeenFiles:
        return SeenFiles(Path(definition.spec.name), {})

    with (
        patch(f"{CONTENT}.seen_files", seen),
        patch(f"{CONTENT}.content_digest", lambda seen, left_out=(): contents[str(seen.folder)]),
    ):
        memory = MemoryServer(*models, models={model.spec.name: settings for model in models})
        memory.turn()
    return memory


def infer(memory: MemoryServer, model: str, *values: float, **parameters: Any) -> Any:
    """Return the first number of each row of `y`, or the error."""
    found: list[Any] = []
    answer: Deferred[Any] = memory.server.infer(
        model, {"x": rows(*values)}, "", Parameters(**parameters)
    )
    answer.addBoth(found.append)
    memory.work()
    if isinstance(found[0], Failure):
        return found[0].value
    return [float(row[0]) for row in found[0].outputs["y"]]


def counts(memory: MemoryServer, model: str) -> CacheCounts:
    return memory.server.metrics.caches.of(model, "1")


def test_a_model_with_the_same_hook_finds_what_another_has_prepared() -> None:
    one, other = Hooked("a", add_one), Hooked("b", add_one, predict=lambda i: {"y": i["x"] * 3})
    memory = server(one, other)
    assert infer(memory, "a", 1.0, 2.0) == [4, 6]
    assert infer(memory, "b", 1.0, 2.0) == [6, 9]
    assert infer(memory, "b", 5.0) == [18]
    assert (one.calls, other.calls) == (1, 1)
    assert counts(memory, "a").prepared == {"miss": 1}
    assert counts(memory, "b").prepared == {"hit": 1, "miss": 1}
    memory.check_nothing_is_left()


@pytest.mark.parametrize("spec", [{}, {"inputs": (tensor("x", shape=(-1,)),)}])
def test_a_hook_of_other_files_or_for_other_inputs_prepares_for_itself(spec: Any) -> None:
    one = Hooked("a", add_one)
    other = Hooked("b", double, b"hook" if spec else b"other hook", **spec)
    memory = server(one, other)
    infer(memory, "a", 1.0)
    infer(memory, "b", 1.0)
    assert (one.calls, other.calls) == (1, 1)


def test_what_is_kept_is_not_written_into_by_a_model() -> None:
    def greedy(inputs: Any) -> Any:
        inputs["x"][:] = -1
        return {"y": inputs["x"]}

    memory = server(*(Hooked(name, add_one, predict=greedy) for name in "ab"), Hooked("c", add_one))
    assert infer(memory, "a", 1.0) == [-1]
    assert infer(memory, "b", 1.0) == [-1]
    assert infer(memory, "c", 1.0) == [4]
    assert counts(memory, "c").prepared == {"hit": 1}


def test_an_error_is_not_kept_and_a_request_that_wants_the_model_is_prepared_anew() -> None:
    def broken(inputs: Any) -> Any:
        raise RuntimeError("broken")

    memory = server(model := Hooked("a", broken))
    for _ in range(2):
        assert isinstance(infer(memory, "a", 1.0), ModelError)
    model._prepare = add_one
    for calls in (3, 4):
        assert infer(memory, "a", 1.0, fresh=True) == [4]
        assert model.calls == calls


def test_rows_of_unequal_lengths_come_back_as_they_were() -> None:
    def uneven(inputs: Any) -> Any:
        return {"t": [np.full(int(row[0]), row[0], "<f4") for row in inputs["x"]]}

    def total(inputs: Any) -> Any:
        return {"y": np.repeat(inputs["t"].sum(axis=1, keepdims=True), 4, axis=1)}

    spec = {"prepared": (tensor("t", shape=(-1,), pad=0.0),)}
    models = [Hooked(name, uneven, predict=total) for name in "ab"]
    for model in models:
        model.spec = model_spec(name=model.spec.name)
        model.spec = type(model.spec)(
            model.spec.name, "1", model.spec.inputs, model.spec.outputs, prepared=spec["prepared"]
        )
    memory = server(*models)
    assert infer(memory, "a", 1.0, 3.0, 2.0) == [1, 9, 4]
    assert infer(memory, "b", 1.0, 3.0, 2.0) == [1, 9, 4]
    assert [model.calls for model in models] == [1, 0]


def test_rows_of_unequal_dtypes_are_not_kept_as_if_all_had_the_first_one() -> None:
    def numbers(inputs: Any) -> Any:  # as of texts, of which an empty one has floats
        return {"t": ragged([np.array([7] * int(row[0]) or []) for row in inputs["x"]])}

    def total(inputs: Any) -> Any:
        return {"y": np.repeat(inputs["t"].sum(axis=1, keepdims=True), 4, axis=1).astype("<f4")}

    memory = server(*(Hooked(name, numbers, predict=total) for name in "ab"))
    assert infer(memory, "a", 0.0, 2.0) == [0, 14]
    assert infer(memory, "b", 0.0, 2.0) == [0, 14]


def test_what_no_bytes_stand_for_or_what_is_too_large_is_not_kept() -> None:
    odd = np.dtype([("a", "<f4")])
    memory = server(
        Hooked(
            "a", lambda inputs: {"x": inputs["x"].astype(odd)}, predict=lambda i: {"y": i["x"]["a"]}
        ),
        Hooked("b", lambda inputs: {"x": np.tile(inputs["x"], 100)}, b"large"),
        max_bytes=4096,
        min_score=1.0,
    )
    for name in ("a", "b", "a", "b"):
        infer(memory, name, 0.25)
    assert counts(memory, "a").prepared == {"miss": 2}
    assert counts(memory, "b").prepared == {"miss": 2}


def test_the_memory_goes_with_the_last_version_that_uses_it() -> None:
    memory = server(Hooked("a", add_one), Hooked("b", add_one))
    infer(memory, "a", 1.0)
    parts = memory.server.lifecycle._parts
    held = [store for store, _ in parts.inputs._stores.values()]
    one, other = memory.server
    memory.server.unload(one)
    memory.turn()
    assert sum(map(len, held)) == 1
    memory.server.unload(other)
    memory.turn()
    assert parts.inputs._stores == {}
    assert sum(store.nbytes for store in held) == 0


def test_without_the_setting_nothing_is_kept() -> None:
    memory = server(model := Hooked("a", add_one), inputs=False, min_score=1.0)
    for _ in range(2):
        infer(memory, "a", -2.0)
    assert model.calls == 2
    assert memory.server.lifecycle._parts.inputs._stores == {}
    names = [family.name for family in memory.server.metrics.caches.collect()]
    assert not [name for name in names if "prepared" in name or "decoded" in name]


def picture(color: int) -> bytes:
    file = BytesIO()
    Image.new("L", (8, 8), color).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_decoded_once_for_all_that_take_it_in_one_form() -> None:
    def brightness(inputs: Any) -> Any:
        return {"y": np.repeat(inputs["image"].max(axis=(1, 2, 3))[:, None], 4, axis=1)}

    image = (tensor("image", shape=(1, 8, 8), image=ImageSpec("L", 8, 8)),)
    larger = (tensor("image", shape=(1, 4, 4), image=ImageSpec("L", 4, 4)),)
    forms = {"a": image, "b": image, "c": larger}
    memory = server(
        *(RecordingModel(model_spec(form, name=name), brightness) for name, form in forms.items())
    )

    def asked(name: str, body: bytes) -> Any:
        request = ask(f"/models/{name}/predict", body, content_type="image/png")
        return over_connection(memory, request).decoded()

    assert asked("a", picture(51)) == asked("b", picture(51)) == asked("c", picture(51))
    assert asked("b", picture(0)) != asked("a", picture(51))
    assert counts(memory, "a").decoded == {"miss": 1, "hit": 1}
    assert counts(memory, "b").decoded == {"hit": 1, "miss": 1}
    assert counts(memory, "c").decoded == {"miss": 1}


def test_tensorflow_serving_finds_its_pictures_decoded_in_either_layout() -> None:
    def brightness(inputs: Any) -> Any:
        return {"y": np.repeat(inputs["image"].max(axis=(1, 2, 3))[:, None], 4, axis=1)}

    image = (tensor("image", shape=(1, 8, 8), image=ImageSpec("L", 8, 8)),)
    memory = server(RecordingModel(model_spec(name="a", inputs=image), brightness), min_score=1.0)

    def asked(member: str, color: int) -> Any:
        value = [{"b64": b64encode(picture(color)).decode()}]
        body = json.dumps({member: value}).encode()
        answer = over_connection(memory, ask("/v1/models/a:predict", body)).decoded()
        assert set(answer) == {"predictions" if member == "instances" else "outputs"}
        return next(iter(answer.values()))

    for member in ("instances", "inputs"):
        assert asked(member, 51) == asked(member, 51) != asked(member, 0)
    assert counts(memory, "a").decoded == {"miss": 4, "hit": 2}


def test_long_text_is_read_once_and_a_full_pool_only_costs_that() -> None:
    spec = model_spec((tensor("x", shape=(60_000,)),), name="a")
    memory = server(RecordingModel(spec, lambda inputs: {"y": inputs["x"][:, :4]}), min_score=1.0)
    body = json.dumps({"inputs": {"x": [[0.25] * 60_000]}}).encode()
    assert len(body) > HEAVY_BYTES

    def asked() -> int:
        request = ask("/models/a/predict", body, content_type="application/json")
        return over_connection(memory, request).status

    assert [asked(), asked()] == [200, 200]
    assert counts(memory, "a").decoded == {"miss": 1, "hit": 1}
    with patch.object(memory.server.pools.cpu, "run", side_effect=QueueFull("full")):
        assert asked() == 200
    assert counts(memory, "a").decoded == {"miss": 1, "hit": 1}
