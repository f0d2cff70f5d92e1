"""Archives answer as their handlers do, one call of the handler for a batch."""

from __future__ import annotations

import json
import py_compile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from batcher.config.single_file import SingleFile
from batcher.errors import InvalidInput, ModelContractError, ModelError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.describing.describe import define_single
from batcher.models.torchserve.bodies import data_of
from tests.support.archives import archive, scripted
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

NAMES = json.dumps({str(place): ["n0", f"class{place}"] for place in range(8)})
SUMS = """
import torch
from ts.torch_handler.base_handler import BaseHandler
from scaling import FACTOR


class Sums(BaseHandler):
    calls = []

    def preprocess(self, data):
        Sums.calls.append(len(data))
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.tensor(rows, dtype=torch.float32) * FACTOR

    def postprocess(self, data):
        from scaling import FACTOR as late
        return [{"sum": value, "factor": late} for value in data[:, 0].tolist()]
"""
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1, bias=False)

    def forward(self, x):
        return self.layer(x)
"""
FUNCTION = """
state = {}


def handle(data, context):
    if data is None:
        state["folder"] = context.system_properties["model_dir"]
        return None
    assert context.manifest["model"]["modelName"] == "m"
    answers = []
    for place, row in enumerate(data):
        body = row["body"]
        if body == "bad":
            context.set_response_status(400, "no such word", place)
        if body == "png":
            context.set_response_content_type(place, "image/png")
        answers.append(body if isinstance(body, str) else bytes(body))
    return answers
"""


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1, keepdim=True)


class Classes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)).repeat(1, 3)[:, :8] * torch.arange(8)


def weights() -> bytes:
    file = BytesIO()
    torch.save({"layer.weight": torch.tensor([[1.0, 2.0, 3.0]])}, file)
    return file.getvalue()


def picture(seed: int, size: tuple[int, int] = (300, 260)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def served(folders: Folders, file: Path, trusted: bool = True) -> CheckedModel:
    definition = define_single(SingleFile(file), "m", "1", trusted)
    return folders.load(definition, trusted=trusted)


def ask(checked: CheckedModel, *bodies: bytes, kinds: Sequence[bytes] = ()) -> list[Any]:
    """Return body and media type of each answer."""
    filled = [*kinds, *[b""] * (len(bodies) - len(kinds))]
    rows = {"body": _texts(bodies), "content_type": _texts(filled)}
    found = answers(checked, **rows)
    return list(zip(found["prediction"], found["content_type"], strict=True))


def _texts(values: Sequence[bytes]) -> Any:
    array = np.empty(len(values), object)
    array[:] = values
    return array


JSON = b"application/json"


def test_a_handler_of_the_archive_answers_a_batch_in_one_call(
    folders: Folders, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {"sums.py": SUMS, "scaling.py": "FACTOR = 2\n"}
    files["net.pt"] = scripted(Sum(), torch.ones(1, 3))
    checked = served(
        folders, archive(tmp_path / "m.mar", "sums.py", files, serializedFile="net.pt")
    )
    found = ask(checked, b"[1, 2, 3]", b"[4, 5, 6]", kinds=[JSON, JSON])
    assert [json.loads(body) for body, _ in found] == [
        {"sum": 12.0, "factor": 2},
        {"sum": 30.0, "factor": 2},
    ]
    assert {kind for _, kind in found} == {JSON}
    assert found[0][0] == json.dumps({"sum": 12.0, "factor": 2}, indent=2).encode()
    handler: Any = checked.model._handle.__self__  # type: ignore[attr-defined]
    assert handler.calls == [2]
    alone = ask(checked, b"[4, 5, 6]", kinds=[JSON])
    assert alone == found[1:]


def test_a_module_of_the_archive_gets_its_weights(folders: Folders, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"sums.py": SUMS, "scaling.py": "FACTOR = 1\n", "net.py": NET}
    files["w.pt"] = weights()
    file = archive(tmp_path / "m.mar", "sums", files, serializedFile="w.pt", modelFile="net.py")
    assert json.loads(ask(served(folders, file), b"[1, 1, 1]", kinds=[JSON])[0][0])["sum"] == 6


def test_the_image_classifier_names_the_best_classes(folders: Folders, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"net.pt": scripted(Classes(), torch.ones(1, 3, 224, 224))}
    files["index_to_name.json"] = NAMES
    file = archive(tmp_path / "m.mar", "image_classifier", files, serializedFile="net.pt")
    checked = served(folders, file, trusted=False)
    pictures = [picture(0), picture(1, (100, 180)), picture(2, (256, 256))]
    together = [json.loads(body) for body, _ in ask(checked, *pictures)]
    alone = [json.loads(ask(checked, each)[0][0]) for each in pictures]
    for one, other in zip(together, alone, strict=True):
        assert list(one) == list(other)
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-5)
    assert len(together[0]) == 5
    assert set(together[0]) <= {f"class{place}" for place in range(8)}


class Detector(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found = {
            "boxes": torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]),
            "labels": torch.tensor([1, 2]),
            "scores": torch.tensor([0.9, 0.1]),
        }
        return [found for _ in range(x.shape[0])]


def test_the_object_detector_gives_what_has_a_score(folders: Folders, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"net.pt": scripted(Detector()), "index_to_name.json": NAMES}
    file = archive(tmp_path / "m.mar", "object_detector", files, serializedFile="net.pt")
    found = ask(served(folders, file, trusted=False), picture(0, (32, 32)), picture(1, (32, 32)))
    (first,) = json.loads(found[0][0])
    assert first.pop("score") == pytest.approx(0.9)
    assert first == {"class1": [0.0, 1.0, 2.0, 3.0]}


class Segmenter(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": torch.cat([x, -x], 1)}


def test_the_image_segmenter_gives_class_and_probability_of_each_pixel(
    folders: Folders, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {"net.pt": scripted(Segmenter())}
    file = archive(tmp_path / "m.mar", "image_segmenter", files, serializedFile="net.pt")
    found = np.array(json.loads(ask(served(folders, file, trusted=False), picture(0))[0][0]))
    assert found.shape == (224, 224, 2)
    assert (found[..., 1] > 1 / 6).all()


def test_a_function_is_set_up_once_and_says_status_and_media_type(
    folders: Folders, tmp_path: Path
) -> None:
    checked = served(folders, archive(tmp_path / "m.mar", "h.py", {"h.py": FUNCTION}))
    text = b"text/plain; charset=utf-8"
    found = ask(checked, b"png", b"\xff", b"word", kinds=[text, b"", text])
    assert found == [
        (b"png", b"image/png"),
        (b"\xff", b"application/octet-stream"),
        (b"word", b"text/plain"),
    ]
    outputs, failed = checked.predict(
        lambda _: {"body": _texts([b"bad", b"good"]), "content_type": _texts([text, text])}, 2
    )
    assert [type(each) for each in failed.values()] == [InvalidInput]
    assert list(failed) == [0]
    assert outputs["prediction"][1] == b"good"


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{", b"\xff", b"1" * 10_000])
def test_a_body_that_is_no_json_is_handed_over_as_its_bytes(body: bytes) -> None:
    assert data_of(body, "application/json") == {"body": bytearray(body)}


def test_parts_of_a_form_are_members(folders: Folders, tmp_path: Path) -> None:
    source = (
        "def handle(data, context):\n"
        "    return data and [[*row, str(type(row['data']))] for row in data]\n"
    )
    checked = served(folders, archive(tmp_path / "m.mar", "h.py", {"h.py": source}))
    form = (
        b'--b\r\nContent-Disposition: form-data; name="data"; filename="x.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\x00\x01\r\n"
        b'--b\r\nContent-Disposition: form-data; name="more"\r\n\r\n1\r\n--b--\r\n'
    )
    (found,) = ask(checked, form, kinds=[b"multipart/form-data; boundary=b"])
    assert json.loads(found[0]) == ["data", "more", "<class 'bytearray'>"]
    with pytest.raises(InvalidInput, match="body: expected a form with named parts; got none"):
        ask(checked, b"nothing", kinds=[b"multipart/form-data; boundary=b"])


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("return data and data[1:]", ModelContractError, "expected a list of 1 answers, .*; got 0"),
        ("return data and 5", ModelContractError, "expected a list of 1 answers, .*; got int"),
        ("if data: raise PredictionException('too dark', 422)", InvalidInput, "too dark"),
        ("if data: raise PredictionException('broken', 500)", ModelError, "broken"),
    ],
)
def test_a_handler_that_fails_fails_its_requests_with_what_it_says(
    folders: Folders, tmp_path: Path, body: str, error: type[Exception], words: str
) -> None:
    source = f"from ts.utils.util import PredictionException\ndef handle(data, c):\n    {body}\n"
    checked = served(folders, archive(tmp_path / "m.mar", "h.py", {"h.py": source}))
    with pytest.raises(error, match=words):
        ask(checked, b"x")


def test_code_of_an_archive_runs_only_where_the_model_is_trusted(
    folders: Folders, tmp_path: Path
) -> None:
    source = "raise SystemExit(3)\n"
    file = archive(tmp_path / "m.mar", "h.py", {"h.py": source})
    with pytest.raises(ModelLoadError, match=r"expected `trusted: true`; got m\.mar, .* h\.py"):
        served(folders, file, trusted=False)
    weights_alone = archive(tmp_path / "w.mar", "base_handler", {"w.bin": b""})
    with pytest.raises(ModelLoadError, match="with no TorchScript, which runs code"):
        served(folders, weights_alone, trusted=False)


def test_bytecode_that_a_manifest_names_as_the_model_file_is_code_as_well(
    folders: Folders, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text("raise SystemExit(3)\n")
    bytecode = Path(py_compile.compile(str(tmp_path / "net.py"), str(tmp_path / "net.pyc")))
    files: dict[str, str | bytes] = {"net": b"", "net.pyc": bytecode.read_bytes()}
    files["w.pt"] = weights()
    file = archive(
        tmp_path / "m.mar", "base_handler", files, serializedFile="w.pt", modelFile="net"
    )
    with pytest.raises(ModelLoadError, match=r"expected `trusted: true`; got m\.mar, .* with net"):
        served(folders, file, trusted=False)


def test_of_several_classes_the_one_that_answers_is_the_handler(
    folders: Folders, tmp_path: Path
) -> None:
    source = (
        "class Data:\n    pass\n\n\nclass Early:\n    def handle(self, data, context):\n"
        "        return [self.word] * len(data)\n\n\nclass Late(Early):\n    word = 'late'\n"
    )
    checked = served(folders, archive(tmp_path / "m.mar", "h.py", {"h.py": source}))
    assert ask(checked, b"")[0][0] == b"late"
    for more, got in (
        (source.replace("handle", "go"), "neither"),
        (source.replace("(Early):", ":\n    handle = Early.handle"), "Early, Late"),
    ):
        file = archive(tmp_path / "other.mar", "h.py", {"h.py": more})
        with pytest.raises(ModelLoadError, match=rf"h\.py: expected one class .*; got {got}"):
            served(folders, file)


def test_the_folder_of_an_archive_goes_with_its_model(folders: Folders, tmp_path: Path) -> None:
    checked = served(folders, archive(tmp_path / "m.mar", "h.py", {"h.py": FUNCTION}))
    folder = Path(checked.model._extracted.name)  # type: ignore[attr-defined]
    assert (folder / "h.py").is_file()
    del checked
    assert not folder.exists()


def test_libraries_of_an_archive_are_named_and_not_installed(
    folders: Folders, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {"h.py": FUNCTION, "requirements.txt": "nothing-such==1\n"}
    file = archive(tmp_path / "m.mar", "h.py", files, requirementsFile="requirements.txt")
    served(folders, file)
    assert any("lists libraries in requirements.txt: install them" in t for t in folders.progress)


def test_handlers_find_what_torchserve_gives_them(folders: Folders, tmp_path: Path) -> None:
    source = (
        "from ts.context import Context\nfrom ts.handler_utils.timer import timed\n"
        "from ts.metrics.dimension import Dimension\n"
        "from ts.metrics.metric_type_enum import MetricTypes\n"
        "from ts.torch_handler.image_classifier import ImageClassifier\n"
        "from ts.utils.util import list_classes_from_module, map_class_to_label\n\n\n"
        "class Handler(ImageClassifier):\n    @timed\n    def handle(self, data, context):\n"
        "        from ts.utils.util import PredictionException  # late\n"
        "        assert isinstance(context, Context)\n        context.metrics.add_counter('n', 1)\n"
        "        context.metrics.add_metric_to_cache('n', 's', MetricTypes.GAUGE)\n"
        "        assert Dimension('a', 'b').value == 'b'\n"
        "        return map_class_to_label([[0.5, 0.25]] * len(data))\n\n"
        "    def initialize(self, context):\n        assert context.model_yaml_config == {'a': 1}\n"
    )
    files: dict[str, str | bytes] = {"h.py": source, "model-config.yaml": "a: 1\n"}
    file = archive(tmp_path / "m.mar", "h.py", files, configFile="model-config.yaml")
    (found,) = ask(served(folders, file), b"")
    assert json.loads(found[0]) == {"0": 0.5, "1": 0.25}


def test_a_handler_that_needs_more_of_torchserve_is_told_what_there_is(
    folders: Folders, tmp_path: Path
) -> None:
    source = "from ts.protocol.otf_message_handler import send_intermediate_predict_response\n"
    file = archive(tmp_path / "m.mar", "h.py", {"h.py": source})
    with pytest.raises(ModelLoadError, match=r"h\.py: expected, of TorchServe, imports of ts\.con"):
        served(folders, file)
