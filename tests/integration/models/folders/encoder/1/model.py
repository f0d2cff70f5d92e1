"""The encoder of a BART of transformers."""

from pathlib import Path

from transformers import BartModel


def make():
    return BartModel.from_pretrained(Path(__file__).parent).get_encoder()
