"""Digits on a page, with Streamlit: `cd examples/streamlit && streamlit run app.py`.

Streamlit runs this file again at every click of every visitor, so the client is made once, by
`st.cache_resource`. `.streamlit/config.toml` keeps Streamlit from sending statistics home.
"""

import os
from math import ceil

import numpy as np
import streamlit as st
from PIL import Image, UnidentifiedImageError

from batcher.client import Client, ClientFailure, InferenceFailed


@st.cache_resource
def shared_client() -> Client:
    return Client(os.environ.get("INFERENCE_URL", "http://127.0.0.1:8080"), timeout=10)


def scores_of(picture: Image.Image) -> np.ndarray:
    image = np.asarray(picture.convert("L").resize((8, 8)), "f4")[None, None] / 255
    return shared_client().infer("digits", {"image": image}).outputs["scores"][0]


st.title("Digits")
if file := st.file_uploader("A digit, as a picture"):
    try:
        scores = scores_of(Image.open(file))
        st.success(f"It is a {scores.argmax()} ({scores.max():.0%}).")
        st.bar_chart(scores)
    except UnidentifiedImageError:
        st.error("That is no picture.")
    except InferenceFailed as failure:
        if failure.retry_after is None:
            st.error("Digits cannot be read now.")
        else:
            st.warning(f"Many ask just now. Try again in {ceil(failure.retry_after)} s.")
    except ClientFailure:
        st.error("Digits cannot be read now.")
