"""Digits on a page, with Gradio: `python examples/gradio/app.py`, then http://127.0.0.1:7860.

One client is shared by all visitors. A variable keeps Gradio from sending statistics home.
"""

import os
from math import ceil

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before the import, which reads it

import gradio as gr
import numpy as np
from PIL import Image

from batcher.client import Client, ClientFailure, InferenceFailed

client = Client(os.environ.get("INFERENCE_URL", "http://127.0.0.1:8080"), timeout=10)


def read(picture: Image.Image | None) -> dict[str, float]:
    if picture is None:
        raise gr.Error("Choose a picture first.")
    image = np.asarray(picture.resize((8, 8)), "f4")[None, None] / 255  # one row of one channel
    try:
        scores = client.infer("digits", {"image": image}).outputs["scores"][0]
    except ClientFailure as failure:
        if isinstance(failure, InferenceFailed) and failure.retry_after is not None:
            seconds = ceil(failure.retry_after)
            raise gr.Error(f"Many ask just now. Try again in {seconds} s.") from failure
        raise gr.Error("Digits cannot be read now.") from failure
    return {str(digit): float(score) for digit, score in enumerate(scores)}


page = gr.Interface(
    read,
    gr.Image(type="pil", image_mode="L", label="A digit, as a picture"),
    gr.Label(label="It is a", num_top_classes=3),
    title="Digits",
    concurrency_limit=32,  # by itself Gradio runs one call at a time, and no batch has two rows
    api_name="read",
)

if __name__ == "__main__":
    page.launch(server_name="127.0.0.1", server_port=int(os.environ.get("PORT", "7860")))
