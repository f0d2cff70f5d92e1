"""Ten archives of torch-model-archiver answer as TorchServe's own Python does, byte for byte.

Floats of pictures may differ in the last digits, where a batch adds in another order.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from batcher.config.single_file import SingleFile
from batcher.models.describing.describe import define_single
from batcher.models.torchserve.archive import extract
from tests.models.torchserve.test_model import (
    FUNCTION,
    NAMES,
    NET,
    SUMS,
    Classes,
    Detector,
    Segmenter,
    Sum,
    ask,
    picture,
    scripted,
    weights,
)
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders

for library in ("model_archiver", "ts", "torchvision"):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
REFERENCE = Path(__file__).with_name("torchserve_reference.py")
Requests = list[tuple[str, bytes]]
PICTURES: Requests = [
    ("image/png", picture(0)),
    ("image/png", picture(1, (100, 180))),
    ("image/png", picture(2, (256, 256))),
]
SMALL: Requests = [("image/png", picture(seed, (32, 24))) for seed in (3, 4)]
ROWS: Requests = [("application/json", body) for body in (b"[1, 2, 3]", b"[4, 5, 6.5]")]

OWN_CLASSIFIER = """
from ts.torch_handler.image_classifier import ImageClassifier
from torchvision import transforms


class Small(ImageClassifier):
    image_processing = transforms.Compose([transforms.Resize(16), transforms.ToTensor()])

    def initialize(self, context):
        super().initialize(context)
        self.set_max_result_classes(2)

    def postprocess(self, data):
        return [{"best": list(row), "of": len(row)} for row in super().postprocess(data)]
"""
CONFIGURED = """
import json
import os
from ts.torch_handler.base_handler import BaseHandler
from words import clean


class Words(BaseHandler):
    def initialize(self, context):
        folder = context.system_properties["model_dir"]
        with open(os.path.join(folder, "scores.json")) as file:
            self.scores = json.load(file)
        self.factor = context.model_yaml_config["factor"]
        self.initialized = True

    def preprocess(self, requests):
        return [clean(each.get("data") or each.get("body")) for each in requests]

    def inference(self, texts):
        return [[self.scores.get(word, 0) * self.factor for word in text] for text in texts]

    def postprocess(self, outputs):
        return [str(sum(each)) for each in outputs]
"""
TENSORS = """
import torch
from ts.torch_handler.base_handler import BaseHandler


class Tensors(BaseHandler):
    def preprocess(self, data):
        return super().preprocess([row["body"] for row in data])
"""


class Case(NamedTuple):
    """An archive, and what it is asked."""

    handler: str
    files: dict[str, str | bytes]
    options: dict[str, str]
    requests: Requests


def cases() -> dict[str, Case]:
    classes = scripted(Classes(), torch.ones(1, 3, 224, 224))
    sums = scripted(Sum(), torch.ones(1, 3))
    net, names = {"serialized-file": "net.pt"}, {"extra-files": "index_to_name.json"}
    named = {"index_to_name.json": NAMES}
    text: Requests = [("text/plain", body) for body in (b"good day", b"bad Good", b"")]
    scaled = {"serialized-file": "net.pt", "extra-files": "scaling.py"}
    words = {"extra-files": "scores.json,words.py", "config-file": "model-config.yaml"}
    word_files = {
        "words.py": "def clean(text):\n    return text.lower().split()\n",
        "scores.json": '{"good": 2, "bad": -1}',
        "model-config.yaml": "factor: 3\n",
    }
    return {
        "classifier": Case("image_classifier", {"net.pt": classes}, net, PICTURES),
        "named": Case("image_classifier", {"net.pt": classes, **named}, net | names, PICTURES),
        "segmenter": Case("image_segmenter", {"net.pt": scripted(Segmenter())}, net, PICTURES[:1]),
        "detector": Case("object_detector", {"net.pt": scripted(Detector())}, net, SMALL),
        "boxes": Case(
            "object_detector", {"net.pt": scripted(Detector()), **named}, net | names, SMALL
        ),
        "sums": Case(
            "sums.py", {"sums.py": SUMS, "scaling.py": "FACTOR = 2\n", "net.pt": sums}, scaled, ROWS
        ),
        "eager": Case(
            "sums.py",
            {"sums.py": SUMS, "scaling.py": "FACTOR = 1\n", "net.py": NET, "w.pt": weights()},
            {"serialized-file": "w.pt", "model-file": "net.py", "extra-files": "scaling.py"},
            ROWS,
        ),
        "function": Case("h.py", {"h.py": FUNCTION}, {}, [*text[:2], ("", b"\xff\x00")]),
        "own": Case("own.py", {"own.py": OWN_CLASSIFIER, "net.pt": classes, **named}, net, SMALL),
        "words": Case("texts.py", {"texts.py": CONFIGURED, **word_files}, words, text[:2]),
        "tensors": Case("tensors.py", {"tensors.py": TENSORS, "net.pt": sums}, net, ROWS),
    }


CASES = cases()


def archived(case: Case, folder: Path) -> Path:
    """Return the archive that torch-model-archiver makes."""
    for name, content in case.files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    options = [part for key, each in case.options.items() for part in (f"--{key}", each)]
    command = ["--model-name", "m", "--version", "1.0", "--handler", case.handler, *options]
    module = "from model_archiver.model_packaging import generate_model_archive as main; main()"
    subprocess.run([sys.executable, "-c", module, *command], cwd=folder, check=True)
    return folder / "m.mar"


def task_of(file: Path, folder: Path, requests: Requests) -> dict[str, Any]:
    """Return what TorchServe's own Python is asked of an archive."""
    folder.mkdir()
    extract(file, folder)
    handler = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())["model"]["handler"]
    asked = [[kind, base64.b64encode(body).decode()] for kind, body in requests]
    answers = str(folder / "answers.json")
    return {"folder": str(folder), "handler": handler, "requests": asked, "answers": answers}


class Answered(NamedTuple):
    """An archive, and what TorchServe's own Python answers to its requests in one batch."""

    file: Path
    wanted: list[bytes]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answered]:
    base = tmp_path_factory.mktemp("archives")
    files, tasks = {}, {}
    for name, case in CASES.items():
        (base / name).mkdir()
        files[name] = archived(case, base / name)
        tasks[name] = task_of(files[name], base / f"{name}_plain", case.requests)
    text = json.dumps(list(tasks.values()))
    subprocess.run([sys.executable, str(REFERENCE)], input=text, text=True, check=True)
    read = {name: json.loads(Path(task["answers"]).read_text()) for name, task in tasks.items()}
    return {
        name: Answered(file, [base64.b64decode(each) for each in read[name]])
        for name, file in files.items()
    }


def same(found: Any, wanted: Any) -> None:
    """Check that two values are the same, but for the last digits of floats."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for one, other in zip(found.values(), wanted.values(), strict=True):
            same(one, other)
    elif isinstance(wanted, list) and any(isinstance(each, dict | str) for each in wanted):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, str):
        assert found == wanted
    else:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_an_archive_answers_as_torchserve_does(
    folders: Folders, answered: dict[str, Answered], name: str
) -> None:
    case, (file, wanted) = CASES[name], answered[name]
    checked = folders.load(define_single(SingleFile(file), "m", "1", True), trusted=True)
    kinds = [kind.encode() for kind, _ in case.requests]
    bodies = [body for _, body in case.requests]
    together = ask(checked, *bodies, kinds=kinds)
    alone = [ask(checked, body, kinds=[kind])[0] for body, kind in zip(bodies, kinds, strict=True)]
    for place, answer in enumerate(wanted):
        for found, kind in (together[place], alone[place]):
            if kind == b"application/json":
                same(json.loads(found), json.loads(answer))
            else:
                assert found == answer


def test_there_are_ten_archives() -> None:
    assert len(CASES) >= 10
