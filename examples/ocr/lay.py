"""Lays RapidOCR's three models, as its package ships them, into the folders of the pipeline.

    pip install 'batcher-inference[ocr]'
    python examples/ocr/lay.py
    batcher serve --set model_repository=examples/ocr/models

The detector and the classifier of directions are copied. The reader gets two more nodes: of the
6,625 scores that each column of a line has, the largest and its place alone leave the graph, so
that a line costs 500 bytes behind the model and not a megabyte.
"""

from __future__ import annotations

import argparse
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

MODELS = Path(__file__).resolve().parent / "models"
COPIED = {
    "ocr_detect": "ch_PP-OCRv4_det_infer.onnx",
    "ocr_direction": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
}
READER = "ch_PP-OCRv4_rec_infer.onnx"
AXES_ARE_INPUTS = 18
"""The first version of ONNX's operators in which ReduceMax takes its axes as an input."""


def package() -> Path:
    """Return the folder of the package, which is not imported."""
    found = find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        raise SystemExit("expected the extra `ocr`: pip install 'batcher-inference[ocr]'")
    return Path(found.origin).parent


def with_best(reader: Any) -> Any:
    """Return the graph `reader`, whose output is [rows, columns, characters], with two others."""
    (scores,) = reader.graph.output
    (version,) = [each.version for each in reader.opset_import if each.domain in ("", "ai.onnx")]
    if version >= AXES_ARE_INPUTS:
        raise SystemExit(f"expected operators below {AXES_ARE_INPUTS}; got {version}")
    over = {"inputs": [scores.name], "keepdims": 0}
    reader.graph.node.extend(
        [
            helper.make_node("ArgMax", outputs=["place"], axis=2, **over),
            helper.make_node("ReduceMax", outputs=["score"], axes=[2], **over),
        ]
    )
    kinds = {"place": TensorProto.INT64, "score": TensorProto.FLOAT}
    reader.graph.output.extend(
        [
            helper.make_tensor_value_info(name, kind, ["rows", "columns"])
            for name, kind in kinds.items()
        ]
    )
    reader.graph.output.remove(scores)
    return reader


def lay(models: Path) -> None:
    """Write the files beside each `model.yaml` below `models`."""
    source = package() / "models"
    for name, file in COPIED.items():
        shutil.copy(source / file, models / name / "1" / "model.onnx")
    reader = onnx.load(source / READER)
    (characters,) = [each.value for each in reader.metadata_props if each.key == "character"]
    (models / "ocr/1/characters.txt").write_text("\n".join(characters.splitlines()) + "\n")
    onnx.save(with_best(reader), models / "ocr_read/1/model.onnx")


def main() -> None:
    """Lay all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=MODELS)
    options = parser.parse_args()
    lay(options.models)
    print(f"three models and their characters are in {options.models}")


if __name__ == "__main__":
    main()
