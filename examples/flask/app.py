"""Digits on a page, with Flask: `flask --app examples/flask/app.py run`, on port 5000.

All threads share one client, which keeps at most 32 connections. Flask serves each request on a
thread of its own, so requests that come together reach the model as one batch.
"""

import os
from math import ceil

import numpy as np
from flask import Flask, render_template_string, request
from PIL import Image, UnidentifiedImageError

from batcher.client import Client, ClientFailure, InferenceFailed

client = Client(
    os.environ.get("INFERENCE_URL", "http://127.0.0.1:8080"), timeout=10, connections=32
)
app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 8 << 20  # bytes of a picture

PAGE = """<!doctype html>
<title>Digits</title>
<form method="post" enctype="multipart/form-data">
  <label>A digit, as a picture <input type="file" name="picture" accept="image/*" required></label>
  <button>Read</button>
</form>
<p role="status">{{ text }}</p>"""


@app.get("/")
def form() -> str:
    return render_template_string(PAGE)


@app.post("/")
def read() -> str:
    grey = Image.open(request.files["picture"]).convert("L").resize((8, 8))
    image = np.asarray(grey, "f4")[None, None] / 255  # one row of one channel
    scores = client.infer("digits", {"image": image}).outputs["scores"][0]
    return render_template_string(PAGE, text=f"It is a {scores.argmax()} ({scores.max():.0%}).")


@app.errorhandler(UnidentifiedImageError)
def no_picture(_: Exception) -> tuple[str, int]:
    return render_template_string(PAGE, text="That is no picture."), 400


@app.errorhandler(ClientFailure)
def sorry(failure: ClientFailure) -> tuple[str, int, dict[str, str]]:
    if isinstance(failure, InferenceFailed) and failure.retry_after is not None:
        seconds = ceil(failure.retry_after)
        page = render_template_string(PAGE, text=f"Many ask just now. Try again in {seconds} s.")
        return page, failure.status, {"Retry-After": str(seconds)}
    app.logger.error("no answer: %s", failure)
    return render_template_string(PAGE, text="Digits cannot be read now."), 502, {}
