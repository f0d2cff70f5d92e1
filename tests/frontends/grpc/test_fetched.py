"""Requests of gRPC that name files."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from batcher.errors import InputMissing, InvalidInput
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from tests.codecs.formats.test_references import ROWS, npy
from tests.frontends.grpc.conftest import Rpc, run
from tests.support.http import MemoryServer
from tests.support.memory_store import MemoryStore
from tests.support.models import RecordingModel, model_spec, tensor

TWO = model_spec((tensor("x"), tensor("scale")))


def request(name: str, *others: np.ndarray[Any, Any], typed: bool = False) -> pb.ModelInferRequest:
    """Return a request whose `x` is a file, and whose `scale` is another array."""
    message = pb.ModelInferRequest(model_name="m")
    for array in others:
        message.inputs.add(name="scale", datatype="FP32", shape=array.shape)
        if typed:
            message.inputs[-1].contents.fp32_contents.extend(array.ravel().tolist())
        else:
            message.raw_input_contents.append(array.tobytes())
    entry = message.inputs.add(name="x", datatype="FP32", shape=ROWS.shape)
    entry.parameters["ref"].string_param = f"s3://box/in/{name}"
    return message


def server(*models: RecordingModel) -> Rpc:
    return Rpc(MemoryServer(*models, input_sources=["s3://box/in/"]))


def test_a_file_is_an_input_beside_others() -> None:
    store = MemoryStore({"in/rows.npy": npy(ROWS)})
    added = RecordingModel(TWO, lambda inputs: {"y": inputs["x"] + inputs["scale"]})
    alone, beside = server(), server(added)

    async def test() -> None:
        answer = await alone.infer(request("rows.npy"))
        assert answer.raw_output_contents[0] == (ROWS * 2).tobytes()
        for typed in (False, True):
            answer = await beside.infer(request("rows.npy", ROWS, typed=typed))
            assert answer.raw_output_contents[0] == (ROWS + ROWS).tobytes()
        with pytest.raises(InputMissing):
            await alone.infer(request("none"))
        both = request("rows.npy")
        both.raw_input_contents.append(ROWS.tobytes())
        with pytest.raises(InvalidInput, match="raw_input_contents: expected 0"):
            await alone.infer(both)

    with patch("batcher.serving.references.fetcher.open_bucket", lambda _: store):
        run(test)
