"""What cuts by length bring MiniLM: texts a second, measured on this processor, one thread.

The texts are the README and the pages of docs/, cut into paragraphs and into sentences, in one
order by chance. Some 128 of them wait at each moment. The three ways take turns, round by round:

    fifo    batches in order of arrival, padded to the longest
    sort    Infinity's rule: windows of eight batches are sorted and cut evenly
    cuts    `batching/ragged_cuts.py`, the code that serves, with the times that it learns

Seconds are those of the processor, so that other work on the machine does not count. Before the
first round each way runs once unmeasured, and the cuts learn what batches take. `make minilm`
makes the model.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import re
from collections.abc import Callable, Hashable, Iterator
from math import inf
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import load_file

from batcher.batching.levels import Levels
from batcher.batching.part import Part
from batcher.batching.ragged_cost import Plane
from batcher.batching.ragged_cuts import RaggedCuts
from batcher.config.model_file import load_model_definition
from batcher.core.padding import Padding, RaggedGroup
from batcher.models.version_code.importing import import_from_folder
from benchmarks.reporting import ROOT, write_results

BATCH = 32
WAITING = 128
SORTED_BATCHES = 8
SEED = 1

Row = np.ndarray[Any, Any]
Batches = Iterator[list[Row]]
Learn = Callable[[int, int, float], None]

REMARKS = (
    f"Batches of at most {BATCH}, {WAITING} texts waiting, one thread. Texts a second of processor "
    "time: the median of the rounds, with the least and the most.",
    "`padding` is padded over real tokens.",
)


def prose() -> list[str]:
    """Return sentences and paragraphs of the pages, in one order by chance."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts: list[str] = []
    for page in pages:
        plain = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for block in re.split(r"\n\s*\n", plain):
            paragraph = " ".join(block.split())
            if len(paragraph) > 3 and not paragraph.startswith(("|", "#", "<")):
                texts += [paragraph, *re.split(r"(?<=[.:?!]) ", paragraph)]
    order = np.random.default_rng(SEED).permutation(len(texts))
    return [texts[place] for place in order]


class Bench:
    """The model, the tokens of the texts, and what the cuts have learnt.

    Attributes:
        rows: the tokens of each text.
        plane: what batches take, learnt by the cuts.
    """

    def __init__(self, folder: Path, count: int) -> None:
        """Load the model in `folder`, and cut `count` texts into tokens."""
        definition = load_model_definition("minilm", "1", folder)
        module = import_from_folder(definition, "model")
        self._model = module.MiniLm()
        self._model.load_state_dict(load_file(folder / "model.safetensors"))
        self._model.eval()
        texts = np.array([text.encode() for text in prose()[:count]], object)
        self.rows: list[Row] = self._model.preprocess({"text": texts})["input_ids"]
        self.plane = Plane()
        self._padding = Padding(definition.spec)

    def run(self, batches: Batches, learn: Learn | None = None) -> tuple[float, float]:
        """Run `batches`; return texts a second, and padded over real tokens."""
        texts = padded = 0
        seconds = 0.0
        for batch in batches:
            longest = max(map(len, batch))
            ids = np.full((len(batch), longest), -1, np.int64)
            for row, own in zip(ids, batch, strict=True):
                row[: len(own)] = own
            began = thread_time()
            with torch.inference_mode():
                self._model(torch.from_numpy(ids))
            taken = thread_time() - began
            if learn is not None:
                learn(len(batch), longest, taken)
            texts += len(batch)
            padded += ids.size
            seconds += taken
        assert texts == len(self.rows)
        return texts / seconds, padded / sum(map(len, self.rows))

    def sorted_batches(self, window: int) -> Batches:
        """Yield batches of windows of so many batches, each window sorted."""
        for start in range(0, len(self.rows), window * BATCH):
            piece = self.rows[start : start + window * BATCH]
            ordered = sorted(piece, key=len) if window > 1 else piece
            for first in range(0, len(ordered), BATCH):
                yield ordered[first : first + BATCH]

    def cut_batches(self) -> Batches:
        """Yield the batches that the server would send."""
        cuts, waiting, coming = RaggedCuts(self.plane), Levels(), iter(self.rows)

        def cost(rows: int, shape: Hashable) -> float:
            elements = shape.elements if isinstance(shape, RaggedGroup) else 0
            return self.plane.seconds(rows, elements)

        group = self._padding.group_of({"input_ids": self.rows[0][np.newaxis]})
        assert isinstance(group, RaggedGroup)
        while True:
            while waiting.rows < WAITING and (row := next(coming, None)) is not None:
                inputs = {"input_ids": row[np.newaxis]}
                waiting.add(Part(inputs, 1, row.nbytes, group, 1, 0.0, inf))
            if not waiting.rows:
                return
            parts, _ = cuts.pack(waiting, group, BATCH, 0.0, cost)
            waiting.take(parts, 0.0)
            yield [part.inputs["input_ids"][0] for part in parts]


@click.command()
@click.option("--model", default=str(ROOT / "models/minilm/1"), help="The model's version folder.")
@click.option("--texts", default=512, help="How many texts a round has.")
@click.option("--rounds", default=3, help="How often each way runs.")
def main(model: str, texts: int, rounds: int) -> None:
    """Measure the three ways and write the table."""
    torch.set_num_threads(1)
    bench = Bench(Path(model), texts)
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "fifo": lambda: bench.run(bench.sorted_batches(1)),
        "sort": lambda: bench.run(bench.sorted_batches(SORTED_BATCHES)),
        "cuts": lambda: bench.run(bench.cut_batches(), bench.plane.add),
    }
    for way in ways.values():
        way()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    rates = {name: median(rate for rate, _ in each) for name, each in found.items()}
    rows = [
        {
            "way": name,
            "texts/s": round(rates[name], 1),
            "least": round(min(rate for rate, _ in each), 1),
            "most": round(max(rate for rate, _ in each), 1),
            "padding": round(each[-1][1], 3),
            "cuts are ahead by": round(rates["cuts"] / rates[name], 2),
        }
        for name, each in found.items()
    ]
    lengths = np.array([len(row) for row in bench.rows])
    spread = ", ".join(f"{int(np.quantile(lengths, share))}" for share in (0.1, 0.5, 0.9, 1.0))
    remark = f"{texts:,} texts of the README and docs/; tokens at 10, 50, 90 and 100 %: {spread}."
    title = "MiniLM: texts of unequal lengths"
    click.echo(write_results("embeddings", title, rows, (remark, *REMARKS)))


if __name__ == "__main__":
    main()
