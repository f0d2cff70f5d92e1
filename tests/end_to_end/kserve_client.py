"""A program that writes, as one line of JSON, what KServe's own clients get from a server.

    kserve_client.py ADDRESS HOST:PORT      of HTTP and of gRPC

The program is a process of its own for two reasons: `kserve` cannot be imported beside
`tritonclient.grpc`, whose messages have the same names, and `kserve` reads the command line when
`kserve` is imported.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ADDRESS, GRPC_ADDRESS = sys.argv[1:]
del sys.argv[1:]

# the command line is empty now
from kserve import (  # noqa: E402
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
)
from kserve.inference_client import RESTConfig  # noqa: E402

HELDOUT = np.load(Path(__file__).parents[2] / "examples" / "digits" / "heldout.npz")
IMAGES = HELDOUT["images"][:5].astype("<f4")


def request_for(binary: bool, parameters: dict[str, Any] | None = None) -> InferRequest:
    """Return a request for the scores of five digits."""
    image = InferInput("image", list(IMAGES.shape), "FP32")
    image.set_data_from_numpy(IMAGES, binary_data=binary)
    return InferRequest("digits", [image], request_id="a", parameters=parameters or {})


def summary_of(response: InferResponse) -> dict[str, Any]:
    """Return the parts of an answer that the test compares."""
    (scores,) = response.outputs
    return {
        "id": response.id,
        "model": response.model_name,
        "scores": scores.as_numpy().reshape(-1, 10).tolist(),
    }


async def over_http() -> dict[str, Any]:
    """Call every method of the REST client; tensors go in and come out in both forms."""
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=30)) as client:
        requests = {
            "binary": request_for(True),
            "json": request_for(False),
            "binary, binary out": request_for(True, {"binary_data_output": True}),
            "json, binary out": request_for(False, {"binary_data_output": True}),
        }
        return {
            "live": await client.is_server_live(ADDRESS),
            "ready": await client.is_server_ready(ADDRESS),
            "digits ready": await client.is_model_ready(ADDRESS, "digits"),
            "other ready": await client.is_model_ready(ADDRESS, "other"),
            "answers": {
                kind: summary_of(await client.infer(ADDRESS, request, model_name="digits"))
                for kind, request in requests.items()
            },
        }


async def over_grpc() -> dict[str, Any]:
    """Call the same methods of the gRPC client."""
    async with InferenceGRPCClient(GRPC_ADDRESS, timeout=30) as client:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "digits ready": await client.is_model_ready("digits"),
            "other ready": await client.is_model_ready("other"),
            "answers": {
                kind: summary_of(await client.infer(request_for(kind == "raw")))
                for kind in ("raw", "typed")
            },
        }


sys.stdout.write(
    json.dumps({"http": asyncio.run(over_http()), "grpc": asyncio.run(over_grpc())}) + "\n"
)
