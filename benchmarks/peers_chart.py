#!/usr/bin/env python3
"""The README's charts: requests/s of this server and of its peers, from `results/http.json`.

    python benchmarks/peers_chart.py

writes `docs/pictures/peers_light.svg` and `peers_dark.svg`. A forge shows the one that fits to the
reader's theme. The bars are those of one model of the results; a test compares the files with the
results, so a new measurement needs a new chart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson

from batcher.app.charts import Theme, bar_chart
from benchmarks.reporting import RESULTS, ROOT

PICTURES = ROOT / "docs" / "pictures"
MODEL = "mlp"  # a PyTorch module, so the figures are of an honest model and not of an echo
PEERS = {"batcher": "batcher", "mosec": "Mosec", "fastapi": "FastAPI"}
THEMES = {
    "light": Theme("#ffffff", "#24292f", "#d0d7de", ("#0072b2", "#d9a441", "#a3adb8")),
    "dark": Theme("#0d1117", "#e6edf3", "#30363d", ("#4aa8e8", "#c99a3d", "#6e7681")),
}


class Comparison(NamedTuple):
    """What the results say of one number of connections."""

    connections: int
    rates: dict[str, float]
    """Requests/s by the name of the server."""


def comparisons() -> list[Comparison]:
    """Return the committed results of `MODEL`, fewest connections first."""
    found: dict[int, Comparison] = {}
    for row in orjson.loads((RESULTS / "http.json").read_bytes())["rows"]:
        if row["model"] == MODEL and row["server"] in PEERS:
            connections, name = row["connections"], PEERS[row["server"]]
            each = found.setdefault(connections, Comparison(connections, {}))
            each.rates[name] = row["requests/s"]
    return [found[connections] for connections in sorted(found)]


def charts() -> dict[str, str]:
    """Return the charts by the names of their files."""
    groups = {
        f"{each.connections} connection{'s' if each.connections > 1 else ''}": each.rates
        for each in comparisons()
    }
    title = "Requests/s of one PyTorch model on two cores, with the load generator on the same two"
    return {
        f"peers_{name}.svg": bar_chart(title, list(PEERS.values()), groups, theme)
        for name, theme in THEMES.items()
    }


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, chart in charts().items():
        (PICTURES / name).write_text(chart)
        print(PICTURES.relative_to(ROOT) / name)
