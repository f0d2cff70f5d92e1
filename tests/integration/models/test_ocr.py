"""The pipeline of examples/ocr reads what RapidOCR's own call reads, in batches of all pages."""

from __future__ import annotations

import io
import json
import re
import runpy
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from batcher.client import Client
from batcher.core.spec import Array
from tests.end_to_end.processes import ROOT, Process, started

EXAMPLE = ROOT / "examples" / "ocr"
LIMIT_S = 300.0
LINE_MODELS = ("ocr_direction", "ocr_read")
WAIT_MS = 3000
"""Lines wait for those of other pages before the first model of lines: on two cores the detector
takes a second for a page. No text depends on it.
"""
SCORE_DISTANCE = 0.01
"""How far a score may be from the package's, whose crops are cut by OpenCV."""

Lines = tuple[list[str], Array, Array]
"""Texts, scores and boxes of a page."""


def page(
    width: int, height: int, *lines: str, size: int = 28, turned: float = 0, shade: str = "white"
) -> Array:
    """Return a drawn page."""
    from PIL import Image, ImageDraw, ImageFont

    drawn = Image.new("RGB", (width, height), shade)
    font = ImageFont.load_default(size)
    for place, line in enumerate(lines):
        at = (30, min(25, height // 8) + place * size * 1.8)
        ImageDraw.Draw(drawn).text(at, line, "black", font)
    turn = drawn.rotate(turned, Image.Resampling.BICUBIC, expand=True, fillcolor=shade)
    return np.asarray(turn)


def pages() -> dict[str, Array]:
    """Return pages of all kinds by their names."""
    return {
        "invoice": page(640, 480, "Invoice 2024-1187", "Total 318.50 EUR", "Thank you"),
        "letter": page(900, 1200, "The quick brown fox jumps over", "the lazy dog 0123456789"),
        "blank": page(700, 500),
        "upside down": page(640, 480, "Please turn this page", "Order 4711", turned=180),
        "slanted": page(800, 600, "A slanted line of text", "and a second one", turned=7),
        "large": page(2600, 1800, "Large page of text", "with two lines", size=80),
        "flat": page(500, 28, "One flat line of text", size=18),
        "down": page(600, 500, "A line that runs down", turned=90, shade="lightyellow"),
    }


@pytest.fixture(scope="module")
def own() -> dict[str, Lines]:
    """Return what the package's own call reads on each page."""
    rapidocr = pytest.importorskip("rapidocr_onnxruntime", reason="`make models` installs it")
    engine = rapidocr.RapidOCR()
    found = {}
    for name, image in pages().items():
        lines = engine(image[..., ::-1])[0] or []  # blue first, as OpenCV's
        boxes = np.array([box for box, *_ in lines], np.float32).reshape(-1, 4, 2)
        scores = np.array([score for *_, score in lines], np.float32)
        found[name] = [text for _, text, _ in lines], scores, boxes
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Serve the example, laid by its script."""
    pytest.importorskip("rapidocr_onnxruntime", reason="`make models` installs it")
    folder = tmp_path_factory.mktemp("ocr")
    shutil.copytree(EXAMPLE / "models", folder / "models")
    runpy.run_path(str(EXAMPLE / "lay.py"))["lay"](folder / "models")
    delay = {"policy": "delay", "max_delay_ms": WAIT_MS}
    settings = [f"models.ocr_direction.{key}={value}" for key, value in delay.items()]
    settings.append(f"model_repository={folder / 'models'}")
    pairs = [part for setting in settings for part in ("--set", setting)]
    with started(folder, *pairs, ready=False) as process:
        process.wait_ready(LIMIT_S)
        yield process


def read(server: Process, images: dict[str, Array]) -> dict[str, Lines]:
    """Ask for all pages at once."""
    with (
        Client(server.address, timeout=LIMIT_S, retries=0) as client,
        ThreadPoolExecutor(len(images)) as pool,
    ):
        asked = [{"image": image[None]} for image in images.values()]
        results = pool.map(lambda inputs: client.infer("ocr", inputs), asked)
        return {
            name: (
                [text.decode() for text in found.outputs["texts"][0]],
                found.outputs["scores"][0],
                found.outputs["boxes"][0],
            )
            for name, found in zip(images, results, strict=True)
        }


def batches(server: Process, model: str) -> tuple[int, int]:
    """Return how many batches and rows a model has had."""
    text = server.get("/metrics")
    found: list[Any] = [
        re.search(rf'^batcher_batch_size_{what}{{[^}}]*model="{model}"[^}}]*}} (\S+)$', text, re.M)
        for what in ("count", "sum")
    ]
    return int(float(found[0][1])), int(float(found[1][1]))


def test_texts_and_boxes_are_those_of_the_package(server: Process, own: dict[str, Lines]) -> None:
    found = read(server, pages())

    assert {name: texts for name, (texts, *_) in found.items()} == {
        name: texts for name, (texts, *_) in own.items()
    }
    assert {name for name, (texts, *_) in own.items() if not texts} == {"blank"}
    for name, (_, scores, boxes) in own.items():
        np.testing.assert_allclose(found[name][2], boxes, atol=0.01, err_msg=name)
        np.testing.assert_allclose(found[name][1], scores, atol=SCORE_DISTANCE, err_msg=name)


def test_a_blank_page_runs_neither_directions_nor_reader(server: Process) -> None:
    before = [batches(server, name) for name in ("ocr_detect", "ocr_direction", "ocr_read")]

    found = read(server, {"blank": pages()["blank"]})["blank"]

    after = [batches(server, name) for name in ("ocr_detect", "ocr_direction", "ocr_read")]
    assert found[0] == []
    assert found[2].shape == (0, 4, 2)
    assert after[0][1] == before[0][1] + 1
    assert after[1:] == before[1:]


def test_lines_of_pages_of_different_sizes_share_batches(server: Process) -> None:
    sizes = [(400, 300), (640, 480), (300, 500), (500, 500), (720, 560)]
    images = {f"Page {width}": page(width, height, f"Page {width}") for width, height in sizes}
    before = {name: batches(server, name) for name in LINE_MODELS}

    found = read(server, images)

    assert sum(len(texts) for texts, *_ in found.values()) == len(images)
    made = {name: np.subtract(batches(server, name), before[name]) for name in LINE_MODELS}
    assert [rows for _, rows in made.values()] == [len(images)] * len(LINE_MODELS)
    # Not the reader, for which nothing waits.
    assert made["ocr_direction"][0] < len(images)


def test_a_picture_is_sent_as_a_file(server: Process, own: dict[str, Lines]) -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pages()["invoice"]).save(file, "PNG")
    kind = {"Content-Type": "image/png"}
    request = Request(f"{server.address}/models/ocr/predict", file.getvalue(), kind)
    with urlopen(request, timeout=LIMIT_S) as answer:
        outputs = json.loads(answer.read())["outputs"]

    assert outputs["texts"] == [own["invoice"][0]]


def test_a_page_of_nearly_no_height_is_refused(server: Process) -> None:
    with (
        Client(server.address, timeout=LIMIT_S, retries=0) as client,
        pytest.raises(Exception, match="expected a page") as raised,
    ):
        client.infer("ocr", {"image": np.zeros((1, 1, 4000, 3), np.uint8)})
    assert getattr(raised.value, "status", 400) == 400


def test_the_folder_of_the_example_is_what_the_readme_says() -> None:
    text = (EXAMPLE / "README.md").read_text()

    assert {path.name for path in (EXAMPLE / "models").iterdir()} == set(
        re.findall(r"^\| \[`models/(\w+)`\]", text, re.MULTILINE)
    )
