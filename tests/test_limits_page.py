"""Every figure on the page of limits is the one in the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.errors import QueueFull
from batcher.workers.fair_queue import FairQueue

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "limits.md"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
LINK = re.compile(r"\[`(\w+)`\]\(\.\./(batcher/[\w/]+)\.py\)")
SETTING = re.compile(r"`(\w+)`")
FIGURE = re.compile(r"([\d,]+)( [A-Za-z]+)?")


class Row(NamedTuple):
    """A row of a table: what is limited, the figure, and where the figure comes from."""

    what: str
    figure: str
    where: str
    refusal: str


def rows() -> list[Row]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Row(*row) for row in cells if row[0] != "what" and row[2]]


def written(figure: str) -> int:
    found = FIGURE.fullmatch(figure)
    assert found, figure
    return int(found[1].replace(",", "")) * UNITS.get((found[2] or "").strip(), 1)


def in_code(where: str) -> object:
    link = LINK.fullmatch(where)
    if link:
        value: object = getattr(importlib.import_module(link[2].replace("/", ".")), link[1])
        return value
    setting = SETTING.fullmatch(where)
    assert setting, where
    settings = ServerSettings() if setting[1] in ServerSettings.model_fields else ModelSettings()
    found: object = getattr(settings, setting[1])
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.what)
def test_a_figure_of_the_page_is_that_of_the_code(row: Row) -> None:
    assert written(row.figure) == in_code(row.where)


def test_the_page_has_rows() -> None:
    assert len(rows()) > 30


def test_one_client_alone_fills_three_quarters_of_the_pool() -> None:
    queue: FairQueue[_Work] = FairQueue("the pool", 1024, 1024)
    for number in range(768):
        queue.put(_Work(number))
    with pytest.raises(QueueFull, match="full for this client, which has 768 tasks"):
        queue.put(_Work(768))


class _Work(NamedTuple):
    number: int
    client: str = "a"
    nbytes: int = 1
