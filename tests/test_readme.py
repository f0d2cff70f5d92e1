"""README.md: short, with figures that are the results', and charts that are made from them."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.peers_chart import PICTURES, charts, comparisons

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
MAX_LINES, MAX_CHARACTERS = 200, 12_000
"""What a newcomer scrolls through; more belongs into docs/."""


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= MAX_LINES
    assert len(TEXT) <= MAX_CHARACTERS


def test_its_first_figures_are_those_of_the_results() -> None:
    most = comparisons()[-1]
    assert f"{most.rates['batcher']:,} requests/s" in TEXT
    assert f"{most.ratios['FastAPI']:.2g} times as many as FastAPI" in TEXT
    assert f"{most.ratios['Mosec']:.2g} times as many as Mosec" in TEXT


def test_the_charts_are_made_from_the_results() -> None:
    for name, chart in charts().items():
        assert (PICTURES / name).read_text() == chart, "run python benchmarks/peers_chart.py"


def test_its_pictures_are_there_in_both_themes() -> None:
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', TEXT)
    assert len(pictures) == 4
    assert [name for name in pictures if not (ROOT / name).is_file()] == []
