"""What KServe's own clients get from a server, as one line of JSON.

`kserve_client.py ADDRESS HOST:PORT`, of HTTP and of gRPC.

A process of its own: `kserve` cannot be imported beside `tritonclient.grpc`, whose messages have
the same names, and it reads the command line when it is imported.
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

# see above
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse  # noqa: E402
from kserve.inference_client import RESTConfig  # noqa: E402 - see above

IMAGES = np.load(Path(__file__).parents[2] / "examples" / "digits" / "heldout.npz")["images"][
    :5
].astype("<f4")


def asked(binary: bool, parameters: dict[str, Any] | None = None) -> InferRequest:
    """Return a request for the scores of five digits."""
    image = InferInput("image", list(IMAGES.shape), "FP32")
    image.set_data_from_numpy(IMAGES, binary_data=binary)
    return InferRequest("digits", [image], request_id="a", parameters=parameters or {})


def told(response: InferResponse) -> dict[str, Any]:
    """Return what is looked at of an answer."""
    (scores,) = response.outputs
    return {
        "id": response.id,
        "model": response.model_name,
        "scores": scores.as_numpy().reshape(-1, 10).tolist(),
    }


async def over_http() -> dict[str, Any]:
    """Ask the REST client everything that it can be asked.

    Tensors go in and come out in both forms.
    """
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=30)) as client:
        requests = {
            "binary": asked(True),
            "json": asked(False),
            "binary, binary out": asked(True, {"binary_data_output": True}),
            "json, binary out": asked(False, {"binary_data_output": True}),
        }
        return {
            "live": await client.is_server_live(ADDRESS),
            "ready": await client.is_server_ready(ADDRESS),
            "digits ready": await client.is_model_ready(ADDRESS, "digits"),
            "other ready": await client.is_model_ready(ADDRESS, "other"),
            "answers": {
                kind: told(await client.infer(ADDRESS, request, model_name="digits"))
                for kind, request in requests.items()
            },
        }


async def over_grpc() -> dict[str, Any]:
    """Ask the gRPC client the same."""
    async with InferenceGRPCClient(GRPC_ADDRESS, timeout=30) as client:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "digits ready": await client.is_model_ready("digits"),
            "other ready": await client.is_model_ready("other"),
            "answers": {
                kind: told(await client.infer(asked(kind == "raw"))) for kind in ("raw", "typed")
            },
        }


sys.stdout.write(
    json.dumps({"http": asyncio.run(over_http()), "grpc": asyncio.run(over_grpc())}) + "\n"
)
