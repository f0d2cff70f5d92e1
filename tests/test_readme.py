"""README.md: short, with figures that are the results'; charts and pictures are worked out."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.peers_chart import PICTURES, charts, comparisons
from docs_tools import batching_pictures, way_picture
from docs_tools.batching_pictures import (
    FIXED_MS,
    LOADS,
    ROW_MS,
    TIMER_MS,
    batches,
    eager,
    mean_ms,
    one_by_one,
    timer,
)

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
MAX_LINES, MAX_CHARACTERS = 200, 12_000
"""What a newcomer scrolls through; more belongs into docs/."""


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= MAX_LINES
    assert len(TEXT) <= MAX_CHARACTERS


def test_its_first_figures_are_those_of_the_results() -> None:
    rates = comparisons()[-1].rates
    assert f"{rates['batcher']:,} requests/s" in TEXT
    # Of the figures that the chart shows, so that a reader who divides them finds the same.
    for peer in ("FastAPI", "Mosec"):
        assert f"{rates['batcher'] / rates[peer]:.2g} times as many as {peer}" in TEXT


def test_the_charts_are_made_from_the_results() -> None:
    for name, chart in charts().items():
        assert (PICTURES / name).read_text() == chart, "run python benchmarks/peers_chart.py"


def test_its_pictures_are_there_in_both_themes() -> None:
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', TEXT)
    assert len(pictures) == 4
    assert [name for name in pictures if not (ROOT / name).is_file()] == []


def test_the_pictures_of_pages_are_made_by_scripts() -> None:
    for script in (batching_pictures, way_picture):
        for name, picture in script.pictures().items():
            assert (PICTURES / name).read_text() == picture, f"run {script.__name__}"


def test_a_picture_of_batching_shows_what_each_way_does() -> None:
    few, many = (arrivals for _, arrivals in LOADS.values())
    assert [len(batch.arrivals) for batch in batches(many, eager)] == [1, 4, 6, 7, 6]
    assert mean_ms(batches(few, eager)) == mean_ms(batches(few, one_by_one)) == FIXED_MS + ROW_MS
    assert mean_ms(batches(few, timer)) == FIXED_MS + ROW_MS + TIMER_MS
    assert mean_ms(batches(many, eager)) < mean_ms(batches(many, one_by_one))
