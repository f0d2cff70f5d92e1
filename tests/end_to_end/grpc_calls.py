"""Plain gRPC calls of the inference service, without a client library of the protocol."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from batcher.frontends.grpc._generated import grpc_service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService"


def row(value: float) -> pb.ModelInferRequest:
    """Return a request of one row, four times `value`, for the model `m`."""
    raw = np.full((1, 4), value, "<f4").tobytes()
    return pb.ModelInferRequest(
        model_name="m",
        id=str(value),
        inputs=[{"name": "x", "datatype": "FP32", "shape": (1, 4)}],
        raw_input_contents=[raw],
    )


def infer_on(channel: Any) -> Any:
    return channel.unary_unary(
        f"{SERVICE}/ModelInfer",
        pb.ModelInferRequest.SerializeToString,
        pb.ModelInferResponse.FromString,
    )


def stream_on(channel: Any) -> Any:
    return channel.stream_stream(
        f"{SERVICE}/ModelStreamInfer",
        pb.ModelInferRequest.SerializeToString,
        pb.ModelStreamInferResponse.FromString,
    )


def code_of(call: Any) -> grpc.StatusCode:
    """Return the status with which `call` ends."""
    code: grpc.StatusCode = call.code()
    return code
