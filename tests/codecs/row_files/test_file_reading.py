"""Rows that are files of a folder."""

from __future__ import annotations

import pytest

from batcher.codecs.row_files.file_reading import FilesReader
from batcher.core.spec import ModelSpec
from batcher.errors import InvalidInput
from tests.support.codec_inputs import encoded, picture_spec, pixels
from tests.support.models import model_spec, tensor

FILES = {"a.png": encoded(pixels(4, 4)), "b.png": b"no picture", "c.png": encoded(pixels(4, 4))}


def reader(spec: ModelSpec, files: dict[str, bytes] = FILES) -> FilesReader:
    run_all = lambda tasks: [task() for task in tasks]  # noqa: E731
    return FilesReader(sorted(files), files.__getitem__, spec, 1000, run_all)


def test_each_picture_is_a_row_in_the_order_of_names() -> None:
    portion = reader(picture_spec((3, 4, 4))).read([0], 2)
    assert portion is not None
    assert portion.places == ["a.png", "b.png", "c.png"]
    assert [list(group.rows) for group in portion.groups] == [[0, 2]]
    assert "picture" in str(portion.bad[1])
    assert portion.after == [3]
    assert reader(picture_spec((3, 4, 4))).read([3], 2) is None


def test_any_file_is_a_row_of_a_model_of_bytes() -> None:
    portion = reader(model_spec((tensor("x", "BYTES", (1,)),))).read([1], 1)
    assert portion is not None
    assert portion.groups[0].inputs["x"].tolist() == [[b"no picture"]]
    assert portion.done == 2 / 3


def test_a_model_of_numbers_takes_no_files() -> None:
    with pytest.raises(InvalidInput, match="expected a model of one input of pictures"):
        reader(model_spec())
