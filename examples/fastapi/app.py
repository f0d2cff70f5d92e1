"""Digits as an API and a page, with FastAPI: `uvicorn --app-dir examples/fastapi app:app`.

All requests share one client. FastAPI's pages of documentation would load scripts of other sites.
"""

import os
from math import ceil

import numpy as np
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image, UnidentifiedImageError

from batcher.client import AsyncClient, ClientFailure, InferenceFailed

PAGE = """<!doctype html>
<title>Digits</title>
<form><label>A digit, as a picture <input type="file" name="picture" required></label>
<button>Read</button></form><p role="status"></p>
<script>
document.forms[0].onsubmit = async (event) => {
  event.preventDefault();
  const answer = await fetch("digits", { method: "POST", body: new FormData(event.target) });
  const { digit, detail } = await answer.json();
  document.querySelector("p").textContent = answer.ok ? `It is a ${digit}.` : detail;
};
</script>"""


client = AsyncClient(os.environ.get("INFERENCE_URL", "http://127.0.0.1:8080"), timeout=10)
app = FastAPI(docs_url=None, redoc_url=None)


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.post("/digits")
async def digits(picture: UploadFile) -> dict[str, float]:
    grey = Image.open(picture.file).convert("L").resize((8, 8))
    image = np.asarray(grey, "f4")[None, None] / 255  # one row of one channel
    scores = (await client.infer("digits", {"image": image})).outputs["scores"][0]
    return {"digit": int(scores.argmax()), "probability": float(scores.max())}


@app.exception_handler(UnidentifiedImageError)
async def no_picture(_: Request, failure: Exception) -> JSONResponse:
    return JSONResponse({"detail": "That is no picture."}, 400)


@app.exception_handler(ClientFailure)
async def sorry(_: Request, failure: ClientFailure) -> JSONResponse:
    if isinstance(failure, InferenceFailed) and failure.retry_after is not None:
        hint = {"Retry-After": str(ceil(failure.retry_after))}
        text = f"Many ask just now. Try again in {hint['Retry-After']} s."
        return JSONResponse({"detail": text}, failure.status, hint)
    return JSONResponse({"detail": "Digits cannot be read now."}, 502)
