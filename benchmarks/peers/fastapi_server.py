"""FastAPI on uvicorn (uvloop, httptools), one request at a time: what teams write first."""

from __future__ import annotations

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.peers.models import INPUT, chosen_model

app = FastAPI()
run = chosen_model()


@app.post("/inference")
async def infer(request: Request) -> Response:
    """Run the one row in the body, on the event loop."""
    row = np.frombuffer(bytearray(await request.body()), INPUT)[np.newaxis]
    return Response(run(row).tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
    )
