"""Models that come in the packages of their libraries, with trained weights: OCR, sound, files.

The voice alone is made here, as Piper's package has none: a graph with the inputs, the constant and
the output of a voice, and a few numbers for weights.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batcher.core.spec import Array
from tests.integration.models.case import Case, Reference, Rows
from tests.integration.models.pictures import floats

RATE = 16_000
VOWELS = ((700, 1200, 2600), (300, 2300, 3000), (400, 800, 2600), (500, 1800, 2500))
"""The lowest three resonances of some vowels, in Hz."""


def package(library: str) -> Path:
    """Return the folder of a library, which is not imported."""
    found = find_spec(library)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def run(file: Path, outputs: list[str], **constants: Array) -> Any:
    """Return a function that runs a graph with onnxruntime itself."""
    from onnxruntime import InferenceSession

    session = InferenceSession(file, providers=["CPUExecutionProvider"])

    def answer(inputs: dict[str, Array]) -> Rows:
        return dict(zip(outputs, session.run(outputs, {**inputs, **constants}), strict=True))

    return answer


def pages() -> Array:
    """Return pictures of one size with different numbers of lines of text."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(24)
    drawn = []
    for lines in (["Hello 2024"], ["one line", "and another"], []):
        page = Image.new("RGB", (320, 128), "white")
        for place, line in enumerate(lines):
            ImageDraw.Draw(page).text((20, 15 + 55 * place), line, "black", font)
        drawn.append(np.asarray(page))
    return np.stack(drawn)


def text_detector(folder: Path) -> Reference:
    """The detector of RapidOCR: height and width are free."""
    file = folder / "detector.onnx"
    shutil.copy(package("rapidocr_onnxruntime") / "models/ch_PP-OCRv4_det_infer.onnx", file)
    return Reference({"x": floats(3, 3, 64, 96)}, run(file, ["sigmoid_0.tmp_0"]))


def text_reader(folder: Path) -> Reference:
    """All of RapidOCR: unequal numbers of lines, and texts."""
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR()

    def answer(inputs: dict[str, Array]) -> Rows:
        read = [engine(page)[0] or [] for page in inputs["image"]]
        return {
            "boxes": [
                np.array([box for box, *_ in lines], np.float32).reshape(-1, 4, 2) for lines in read
            ],
            "texts": [[text.encode() for _, text, _ in lines] for lines in read],
            "scores": [[float(score) for *_, score in lines] for lines in read],
        }

    return Reference({"image": pages()}, answer)


def voice_activity(folder: Path) -> Reference:
    """The graph of Silero VAD: its state has the batch on the second axis, its rate is constant."""
    file = folder / "silero_vad.onnx"
    shutil.copy(package("silero_vad") / "data/silero_vad.onnx", file)
    plain = run(file, ["output", "stateN"], sr=np.array(RATE))

    def answer(inputs: dict[str, Array]) -> Rows:
        state = np.ascontiguousarray(inputs["state"].swapaxes(0, 1))
        found = plain({"input": inputs["input"], "state": state})
        return {"output": found["output"], "stateN": found["stateN"].swapaxes(0, 1)}

    return Reference({"input": floats(4, 576) - 0.5, "state": floats(4, 2, 128)}, answer)


def voice(samples: int, seed: int) -> Array:
    """Return a buzz through five vowels a second, which a detector takes for speech."""
    from scipy.signal import lfilter

    generator = np.random.default_rng(seed)
    seconds = np.arange(samples) / RATE
    phase = np.cumsum(120 * (1 + 0.15 * np.sin(8 * seconds))) / RATE
    source = np.diff(np.floor(phase), prepend=0) + 0.01 * generator.normal(size=samples)
    made = np.zeros(samples)
    for syllable in np.array_split(np.arange(samples), samples * 5 // RATE):
        sound = source[syllable]
        formants = VOWELS[generator.integers(len(VOWELS))]
        for formant, width in zip(formants, (80, 100, 120), strict=True):
            radius = np.exp(-np.pi * width / RATE)
            middle = 2 * radius * np.cos(2 * np.pi * formant / RATE)
            sound = lfilter([1], [1, -middle, radius * radius], sound)
        loudness = 0.5 * np.sqrt(np.hanning(len(syllable) + 2)[1:-1])
        made[syllable] = loudness * sound / np.abs(sound).max()
    return made


def clips() -> Array:
    """Return clips of four seconds with two stretches of speech, one and none."""
    silence = np.zeros(RATE)
    spoken = [voice(2 * RATE, seed=0), voice(2 * RATE, seed=1), np.zeros(2 * RATE)]
    return np.stack([np.concatenate([silence, one, silence]) for one in spoken]).astype(np.float32)


def speech_times(folder: Path) -> Reference:
    """All of Silero VAD: unequal numbers of stretches, by a model that keeps state."""
    from silero_vad import get_speech_timestamps, load_silero_vad

    model = load_silero_vad()

    def answer(inputs: dict[str, Array]) -> Rows:
        found = [get_speech_timestamps(torch.from_numpy(clip), model) for clip in inputs["audio"]]
        return {name: [[part[name] for part in one] for one in found] for name in ("start", "end")}

    return Reference({"audio": clips()}, answer)


def voice_graph() -> Any:
    """Return a graph with the tensors of a Piper voice: ids, their number, and three scales."""
    from onnx import TensorProto, helper, numpy_helper

    frames = np.random.default_rng(5).uniform(-1, 1, (16, 32)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["frames", "input"], ["sound"]),
        helper.make_node("Gather", ["scales", "first"], ["noise"]),
        helper.make_node("Mul", ["sound", "noise"], ["scaled"]),
        helper.make_node("Unsqueeze", ["input_lengths", "last"], ["lengths"]),
        helper.make_node("Cast", ["lengths"], ["float_lengths"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float_lengths", "last"], ["wide_lengths"]),
        helper.make_node("Mul", ["scaled", "wide_lengths"], ["even"]),
        helper.make_node("Reshape", ["even", "shape"], ["output"]),
    ]
    numbers = {"first": np.array([0]), "last": np.array([-1]), "shape": np.array([0, 1, 1, -1])}
    weights = [numpy_helper.from_array(frames, "frames")]
    weights += [numpy_helper.from_array(array, name) for name, array in numbers.items()]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, ["batch", "phonemes"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    shape = ["batch", 1, 1, "time"]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "voice", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def piper(folder: Path) -> Reference:
    """A voice for Piper: one free axis, and scales that are the same for all rows."""
    from piper import PiperVoice

    file = folder / "voice.onnx"
    file.write_bytes(voice_graph().SerializeToString())
    config = {
        "num_symbols": 16,
        "num_speakers": 1,
        "audio": {"sample_rate": RATE},
        "espeak": {"voice": "en"},
        "phoneme_id_map": {},
        "phoneme_type": "text",
    }
    Path(f"{file}.json").write_text(json.dumps(config))
    voice = PiperVoice.load(file)

    def answer(inputs: dict[str, Array]) -> Rows:
        return {"output": [voice.phoneme_ids_to_audio(ids)[None, None] for ids in inputs["input"]]}

    ids = np.random.default_rng(6).integers(0, 16, (4, 7))
    return Reference({"input": ids, "input_lengths": np.full(4, 7)}, answer)


def file_type(folder: Path) -> Reference:
    """Magika: what kind of file some bytes are."""
    from magika import Magika

    magika = Magika()
    files = [b"def f():\n    return 1\n" * 20, b"<html><body>x</body></html>" * 9, b"\0\1\xff", b""]

    def answer(inputs: dict[str, Array]) -> Rows:
        found = [magika.identify_bytes(content) for content in inputs["content"]]
        labels = [str(one.output.label).encode() for one in found]
        return {"label": labels, "score": [one.score for one in found]}

    return Reference({"content": np.array(files, object)}, answer)


def pitch(folder: Path) -> Reference:
    """Basic Pitch: names of tensors as TensorFlow writes them."""
    file = folder / "nmp.onnx"
    shutil.copy(package("basic_pitch") / "saved_models/icassp_2022/nmp.onnx", file)
    names = {"note": "StatefulPartitionedCall:1", "onset": "StatefulPartitionedCall:2"}
    graph = run(file, list(names.values()))

    def answer(inputs: dict[str, Array]) -> Rows:
        found = graph({"serving_default_input_2:0": inputs["audio"]})
        return {name: found[inside] for name, inside in names.items()}

    # In silence the graph finds what it finds in the rest of the batch, so all three rows sound.
    starts = ((0, RATE // 2), (0, RATE), (1, RATE))
    cut = [clips()[clip, start : start + 43844, None] for clip, start in starts]
    return Reference({"audio": np.stack(cut)}, answer)


CASES = [
    Case("text_detector", ("rapidocr_onnxruntime",), text_detector),
    Case("text_reader", ("rapidocr_onnxruntime",), text_reader, ragged=True),
    Case("voice_activity", ("silero_vad",), voice_activity),
    Case("speech_times", ("silero_vad",), speech_times, ragged=True),
    Case("piper", ("piper",), piper),
    Case("file_type", ("magika",), file_type),
    Case("pitch", ("basic_pitch",), pitch),
]
