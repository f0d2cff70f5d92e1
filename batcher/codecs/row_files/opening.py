"""Which reader and which writer a file has: the end of its name says it."""

from __future__ import annotations

from pathlib import PurePath
from typing import BinaryIO

from batcher.codecs.format_table import CSV
from batcher.codecs.row_files.npz_reading import NpzReader
from batcher.codecs.row_files.npz_writing import NpzWriter
from batcher.codecs.row_files.parquet_reading import ParquetReader
from batcher.codecs.row_files.parquet_writing import ParquetWriter
from batcher.codecs.row_files.text_reading import csv_reader, json_lines_reader
from batcher.codecs.row_files.text_writing import CsvWriter, JsonLinesWriter
from batcher.core.portions import RowReader, RowWriter, State
from batcher.core.spec import ModelSpec
from batcher.errors import InvalidInput

JSON_LINES_ENDS = (".jsonl", ".ndjson")
KNOWN = "JSON lines (.jsonl), CSV (.csv), numpy arrays (.npz) or Parquet (.parquet)"


def check_ending(name: str, what: str) -> None:
    """Check that the file `name` is of a known kind. Raises InvalidInput, which says `what` it is.

    A name is checked before anything is read or loaded.
    """
    if _ending(name) not in (*JSON_LINES_ENDS, ".csv", ".npz", ".parquet"):
        raise InvalidInput(f"{what}: expected {KNOWN}; got {name}")


def _ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def reader_of(
    name: str, file: BinaryIO, spec: ModelSpec, csv_header: str, max_pixels: int
) -> RowReader:
    """Return what reads the rows of `file`, whose name is `name`.

    Raises ClientError: the file cannot hold inputs of the model.
    """
    ending = _ending(name)
    if ending == ".npz":
        return NpzReader(file, spec)
    if ending == ".parquet":
        return ParquetReader(file, spec)
    if ending in JSON_LINES_ENDS:
        return json_lines_reader(file, spec, max_pixels)
    if not CSV.carries_inputs(spec):
        raise InvalidInput(
            f"model {spec.name!r}: CSV holds one input, or several of one value each; JSON lines "
            "hold any"
        )
    return csv_reader(file, spec, csv_header)


def writer_of(name: str, spec: ModelSpec, state: State) -> RowWriter:
    """Return what writes the answers of a model, to go on with `state`.

    Raises InvalidInput: the kind of file cannot hold outputs of the model.
    """
    ending = _ending(name)
    if ending == ".npz":
        return NpzWriter(spec, state)
    if ending == ".parquet":
        return ParquetWriter(spec, state)
    if ending in JSON_LINES_ENDS:
        return JsonLinesWriter(spec, state)
    if any(tensor.is_ragged or tensor.unpads for tensor in spec.outputs):
        raise InvalidInput(
            f"model {spec.name!r}: expected outputs of one length for CSV; its rows have several: "
            "JSON lines hold any"
        )
    return CsvWriter(spec, state)
