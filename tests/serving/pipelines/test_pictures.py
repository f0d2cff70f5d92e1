"""Built-in steps on pictures: corners, resize and turn; and a pipeline in the shape of OCR."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.config.pipelines.options import CropBoxesOptions, ResizeOptions, TurnOptions
from batcher.core.ragged import ragged
from batcher.core.spec import Array
from batcher.errors import InvalidInput, ModelLoadError, TooLarge
from batcher.serving.pipelines.built_in import boxes as boxes_module
from batcher.serving.pipelines.built_in.boxes import CropBoxes
from batcher.serving.pipelines.built_in.built_in import COUNTS
from batcher.serving.pipelines.built_in.pictures import Resize, Turn
from batcher.serving.pipelines.built_in.sampling import resized, warped
from tests.support.gate import Gate
from tests.support.models import model_spec, tensor
from tests.support.pipelines import Pipelines

SLOPE = (np.arange(12)[:, None] * 10 + np.arange(20))[..., None].astype(np.float32)
"""A picture whose brightness is 10 * y + x, so each place between pixels has a known one."""


def corners_of(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def cut(image: Array, *found: Any, **options: Any) -> dict[str, Array]:
    """Return what `crop_boxes` makes of a picture [height, width, channel] and its corners."""
    every = np.array(found, np.float32).reshape(1, -1, 4, 2)
    step = CropBoxes(CropBoxesOptions(layout="hwc", **options))
    return step.run({"image": image[None], "boxes": every})


def test_four_corners_along_the_pixels_are_cut_out_as_two_corners_are() -> None:
    found = cut(SLOPE, corners_of(3, 2, 9, 5))

    assert found["crops"][0].tolist() == SLOPE[2:5, 3:9].tolist()
    assert found["box"].tolist() == [corners_of(3, 2, 9, 5)]


def test_a_picture_between_four_corners_is_seen_from_above() -> None:
    corners = np.array([[6, 2], [16, 4], [15, 9], [5, 7]], np.float32)  # turned: still even

    (crop,) = cut(SLOPE, corners)["crops"]

    assert crop.shape == (5, 10, 1)
    down, right = np.mgrid[:5, :10]
    x, y = 6 + right - down / 5, 2 + right / 5 + down
    assert np.abs(crop[..., 0] - (10 * y + x)).max() < 0.8  # a tenth of a pixel


def test_perspective_takes_the_middle_where_the_diagonals_meet() -> None:
    corners = np.array([[4, 2], [16, 2], [13, 10], [7, 10]], np.float32)

    crop = warped(SLOPE, corners, 8, 12)

    # The diagonals meet at x = 10, y = 2 + 8 * 12 / 18.
    assert crop[4, 6, 0] == pytest.approx(10 * (2 + 8 * 12 / 18) + 10, abs=0.8)


def test_corners_are_cut_off_at_the_edges_and_what_has_no_pixel_makes_no_row() -> None:
    crossed = [[2, 2], [8, 2], [2, 6], [8, 6]]
    point, nan = [[3, 3]] * 4, [[np.nan] * 2] * 4

    found = cut(SLOPE, crossed, corners_of(-9, -9, 5, 1e30), point, nan)

    assert found[COUNTS].tolist() == [1]
    assert found["crops"][0].tolist() == SLOPE[:, :5].tolist()


def test_a_picture_without_channels_has_no_pixel_and_makes_no_row() -> None:
    corners = np.array([[6, 2], [16, 4], [15, 9], [5, 7]], np.float32)

    assert cut(SLOPE[..., :0], corners)[COUNTS].tolist() == [0]


def test_a_tall_crop_is_turned_to_the_left_in_both_layouts() -> None:
    tall, wide = corners_of(0, 0, 4, 6), corners_of(0, 0, 6, 4)

    found = cut(SLOPE, tall, wide, turn_tall=1.5)["crops"]
    step = CropBoxes(CropBoxesOptions(layout="chw", turn_tall=1.5))
    first = np.array([[[0, 0, 4, 6]]])
    other = step.run({"image": SLOPE.transpose(2, 0, 1)[None], "boxes": first})["crops"]

    assert found[0].tolist() == np.rot90(SLOPE[:6, :4]).tolist()
    assert found[1].shape == (4, 6, 1)
    assert other[0].tolist() == [np.rot90(SLOPE[:6, :4, 0]).tolist()]


def test_more_bytes_in_perspective_than_a_page_has_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boxes_module, "MAX_WARPED", 10 * 5 * 4)
    corners = np.array([[6, 2], [16, 4], [15, 9], [5, 7]], np.float32)

    assert cut(SLOPE, corners)[COUNTS].tolist() == [1]
    with pytest.raises(TooLarge, match="at most 200 bytes"):
        cut(SLOPE, corners, corners)


def test_resized_pixels_lie_between_their_neighbours() -> None:
    image = np.array([[[0], [100]], [[20], [121]]], np.uint8)

    found = resized(image, 2, 4)[..., 0]

    assert found.tolist() == [[0, 25, 75, 100], [20, 45, 96, 121]]
    assert found.dtype == np.uint8
    assert resized(SLOPE, 6, 10)[2, 3, 0] == pytest.approx(10 * 4.5 + 6.5)


def test_a_line_of_text_gets_a_height_and_is_filled_up_or_squeezed() -> None:
    step = Resize(ResizeOptions(height=4, min_width=8, max_width=16, layout="hwc", to="chw"))
    lines = [np.full((8, width, 1), 9, np.uint8) for width in (6, 24, 64)]

    found = step.run({"image": ragged(lines)})["image"]

    assert [line.shape for line in found] == [(1, 4, 8), (1, 4, 12), (1, 4, 16)]
    assert found[0][0, 0].tolist() == [9, 9, 9, 0, 0, 0, 0, 0]


def test_pixels_become_numbers_as_for_a_picture_of_a_request() -> None:
    step = Resize(ResizeOptions(height=1, width=1, mean=(0.5,), std=(0.25, 0.5)))
    image = np.array([[[[255]], [[0]]]], np.uint8)

    found = step.run({"image": image})["image"]

    assert found.dtype == np.float32
    assert found.tolist() == [[[[2]], [[-1]]]]
    (spec,) = step.outputs({"image": tensor("image", "UINT8", (2, -1, -1))})
    assert (spec.datatype.name, spec.shape) == ("FP32", (2, 1, 1))


@pytest.mark.parametrize(("shape", "error"), [((1, 0, 4), InvalidInput), ((1, 1, 10**7), TooLarge)])
def test_a_picture_that_cannot_be_resized_is_the_fault_of_the_request(
    shape: tuple[int, ...], error: type[Exception]
) -> None:
    step = Resize(ResizeOptions(height=48))

    with pytest.raises(error, match="expected pictures of at"):
        step.run({"image": np.zeros((1, *shape), np.uint8)})


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_picture_of_other_channels_than_mean_and_std_is_the_fault_of_the_request(
    channels: int,
) -> None:
    step = Resize(ResizeOptions(height=2, mean=(1, 2, 3)))

    with pytest.raises(InvalidInput, match=f"of 3 channels, .*; got {channels}"):
        step.run({"image": np.zeros((1, channels, 2, 2), np.uint8)})


@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_as_long_as_a_body_may_be_takes_no_more_memory_than_it_has(turned: bool) -> None:
    strip = np.broadcast_to(np.arange(300_000, dtype=np.float32)[:, None], (1, 300_000, 1))
    image = strip.transpose(1, 0, 2) if turned else strip

    tracemalloc.start()
    try:
        found = resized(image, 48, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < image.nbytes  # the other way round it has 40 times as many
    between = found[:, 0, 0] if turned else found[0, :, 0]
    step = 300_000 / len(between)
    assert between == pytest.approx((np.arange(len(between)) + 0.5) * step - 0.5)


def test_a_turn_by_a_quarter_is_clockwise() -> None:
    image = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)

    found = [
        Turn(TurnOptions(degrees=degrees)).run({"image": image[None]})["image"][0, 0].tolist()
        for degrees in (90, 180, 270)
    ]

    assert found == [[[4, 1], [5, 2], [6, 3]], [[6, 5, 4], [3, 2, 1]], [[3, 6], [2, 5], [1, 4]]]


OCR = """
format: pipeline
inputs: [{name: page, dtype: FP32, shape: [-1, -1, 1]}]
outputs: [{name: texts, dtype: FP32, shape: [-1], ragged: true, from: texts.values}]
steps:
  - {name: found, model: find, inputs: {page: page}}
  - {name: cut, use: crop_boxes, with: {layout: hwc}, inputs: {image: page, boxes: found.boxes}}
  - {name: way, model: way, inputs: {line: cut.crops}}
  - name: upright
    use: turn
    with: {degrees: 180, layout: hwc}
    inputs: {image: cut.crops}
    when: way.down == 1
    else: {image: cut.crops}
  - name: line
    use: resize
    with: {height: 2, min_width: 4, layout: hwc, to: chw}
    inputs: {image: upright.image}
  - {name: read, model: read, inputs: {line: line.image}}
  - {name: texts, use: fold, inputs: {values: read.first}}
"""
LINES = [[1, 2, 3, 3], [3, 1], [5, 5]]
"""The pixels of lines; a line whose last pixel is larger than its first is upside down."""


def ocr(tmp_path: Path, read: Any) -> Pipelines:
    """Return a server with models as for OCR: a page has a line in each row that is not 0."""
    pipelines = Pipelines(tmp_path)

    def find(inputs: Mapping[str, Array]) -> dict[str, Any]:
        found = []
        for page in inputs["page"]:
            rows = np.flatnonzero(page.any((1, 2)))
            ends = [int(np.flatnonzero(page[row, :, 0]).max()) + 1 for row in rows]
            every = [corners_of(0, row, end, row + 1) for row, end in zip(rows, ends, strict=True)]
            found.append(np.array(every, np.float32).reshape(-1, 4, 2))
        return {"boxes": ragged(found)}

    def way(inputs: Mapping[str, Array]) -> dict[str, Any]:
        line = inputs["line"][:, 0, :, 0]
        last = np.array([row[row != 0][-1] for row in line])
        return {"down": (line[:, 0] < last).astype("<i8")}

    page = tensor("page", shape=(-1, -1, 1), pad=np.float32(0))
    spec = model_spec((page,), (tensor("boxes", shape=(-1, 4, 2), is_ragged=True),), name="find")
    pipelines.add_ready("find", predict=find, spec=spec)
    line = tensor("line", shape=(-1, -1, 1), pad=np.float32(0))
    spec = model_spec((line,), (tensor("down", "INT64", ()),), name="way")
    pipelines.add_ready("way", predict=way, spec=spec)
    line = tensor("line", shape=(1, 2, -1), pad=np.float32(0))
    spec = model_spec((line,), (tensor("first", shape=()),), name="read")
    pipelines.add_ready("read", predict=read, spec=spec)
    pipelines.ready(OCR)
    return pipelines


def page_of(height: int, width: int, *lines: list[int]) -> Array:
    page = np.zeros((1, height, width, 1), np.float32)
    for row, line in enumerate(lines):
        page[0, row, : len(line), 0] = line
    return page


def first(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"first": inputs["line"][:, 0, 0, 0]}


def test_lines_that_lie_upside_down_alone_are_turned(tmp_path: Path) -> None:
    pipelines = ocr(tmp_path, first)

    answer = pipelines.infer(model="p", inputs={"page": page_of(5, 6, *LINES)})

    assert pipelines.response(answer).outputs["texts"].tolist() == [[3, 3, 5]]
    counts = pipelines.server.metrics.pipelines.of("p", "1").of("upright")
    assert (counts.run, counts.skipped) == (1, 2)
    pipelines.end()


def test_lines_of_pages_of_all_sizes_share_batches_and_blank_pages_have_none(
    tmp_path: Path,
) -> None:
    gate = Gate()
    gate.close()
    sizes: list[int] = []

    def read(inputs: Mapping[str, Array]) -> dict[str, Array]:
        gate.stop()
        sizes.append(len(inputs["line"]))
        return first(inputs)

    pipelines = ocr(tmp_path, read)
    pages = [page_of(3, 5, [7, 1]), page_of(9, 4), page_of(4, 12, [4, 1], [2] * 12), page_of(1, 1)]
    pages[3][0, 0, 0, 0] = 8
    answers = [pipelines.infer(model="p", inputs={"page": page}) for page in pages]
    counts = pipelines.server.metrics.pipelines.of("p", "1").of("line")
    pipelines.loop.run_until(lambda: counts.run == 4)  # so that the others wait together
    blank = pipelines.response(answers[1]).outputs["texts"]
    gate.open()
    others = [pipelines.response(answers[place]) for place in (0, 2, 3)]

    assert blank.shape == (1, 0)
    assert [other.outputs["texts"].tolist() for other in others] == [[[7]], [[4, 2]], [[8]]]
    assert sum(sizes) == 4
    assert len(sizes) < 4
    pipelines.end()


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("height: 2,", "height: 2, width: 3,", "expected `width` alone"),
        ("height: 2,", "height: 2, max_width: 3,", "a `max_width` of at least `min_width`"),
        (
            "height: 2,",
            "height: 2, mean: [0, 0],",
            "one value of mean and of std, or one for each of 1 channels",
        ),
        ("degrees: 180", "degrees: 45", "degrees: expected 90, 180 or 270; got 45"),
        ("image: cut.crops}\n    when", "image: cut.box}\n    when", "expected rows of three axes"),
    ],
)
def test_what_does_not_fit_a_picture_is_named(
    tmp_path: Path, old: str, new: str, error: str
) -> None:
    pipelines = ocr(tmp_path, first)

    found = pipelines.loop.error_of(pipelines.pipeline(OCR.replace(old, new), name="wrong"))

    assert isinstance(found, ModelLoadError)
    assert error in str(found)
    pipelines.end()
