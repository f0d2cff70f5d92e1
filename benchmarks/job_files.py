"""Input files of batch jobs for benchmarks: numbers at random, in blocks, however many rows.

Each writer leaves its file on the disk, not in the page cache alone: what the system still writes
would hold up the checkpoints of the job that is measured next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy_format

from batcher.core.spec import TensorSpec

BLOCK = 4096
"""Rows of a block. Lines are those of one block, again and again: to make them anew takes long."""


def write_rows(path: Path, tensor: TensorSpec, count: int) -> None:
    """Write `count` rows of an input `tensor`, whose axes are fixed, as the end of `path` says."""
    if path.suffix == ".npz":
        _write_arrays(path, tensor, count)
    else:
        write_lines(path, tensor, count, lambda row, _: json.dumps(row, separators=(",", ":")))


def write_lines(
    path: Path, tensor: TensorSpec, count: int, line_of: Callable[[list[float], int], str]
) -> None:
    """Write `count` lines, which `line_of` makes of the values and the number of a row."""
    # Three digits, as people write numbers.
    block = _block(tensor).astype(float).round(3).reshape(BLOCK, -1).tolist()
    lines = [line_of(row, number) + "\n" for number, row in enumerate(block[:count])]
    whole = "".join(lines)
    with path.open("w") as file:
        for _ in range(count // BLOCK):
            file.write(whole)
        file.write("".join(lines[: count % BLOCK]))
        file.flush()
        os.fsync(file.fileno())


def _write_arrays(path: Path, tensor: TensorSpec, count: int) -> None:
    block = _block(tensor)
    header = {"descr": block.dtype.str, "fortran_order": False, "shape": (count, *tensor.shape)}
    with path.open("wb") as file:
        with (
            ZipFile(file, "w") as archive,
            archive.open(f"{tensor.name}.npy", "w", force_zip64=True) as target,
        ):
            npy_format.write_array_header_1_0(target, header)
            for start in range(0, count, BLOCK):
                target.write(block[: count - start].tobytes())
        file.flush()
        os.fsync(file.fileno())


def _block(tensor: TensorSpec) -> np.ndarray:
    random = np.random.default_rng(1)
    return random.random((BLOCK, *tensor.shape), np.float32).astype(tensor.datatype.numpy)
