"""`reshape` in `model.yaml`: what is no view of the same elements is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.model_file import load_model_definition
from batcher.config.tensor_file import same_elements
from batcher.errors import ConfigError


def read(folder: Path, form: str, entry: str) -> None:
    (folder / "net.pt").touch()
    (folder / "model.yaml").write_text(
        f"format: {form}\nfile: net.pt\ninputs: [{{name: x, dtype: FP32, {entry}}}]\n"
        "outputs: [{name: y, dtype: FP32, shape: []}]\n"
    )
    load_model_definition("m", "1", folder)


@pytest.mark.parametrize(
    ("form", "entry", "words"),
    [
        (
            "torchscript",
            "shape: [4], reshape: [2, 3]",
            r"as many elements as shape \[4\].*\[2, 3\]",
        ),
        ("torchscript", "shape: [-1], reshape: [-1], pad: 0", "no `reshape` beside `pad`"),
        ("export", "shape: [4], reshape: [2, 2]", "`reshape` with format onnx or torchscript"),
    ],
)
def test_what_cannot_be_a_view_is_refused(
    tmp_path: Path, form: str, entry: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, form, entry)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ([1], [], True),
        ([12], [3, 2, 2], True),
        ([-1], [-1, 1], True),
        ([-1, 2], [2, -1], True),
        ([-1, -1], [-1, -1, 1], False),
        ([-1], [4], False),
        ([0], [0, 3], False),
    ],
)
def test_shapes_have_as_many_elements(one: list[int], other: list[int], is_same: bool) -> None:
    assert same_elements(one, other) is is_same
