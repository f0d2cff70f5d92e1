"""Which reader and which writer a file has: the end of its name says it."""

from __future__ import annotations

from functools import partial
from pathlib import PurePath
from typing import BinaryIO

from batcher.codecs.format_table import CSV
from batcher.codecs.row_files.batch_reading import BatchReader
from batcher.codecs.row_files.batch_writing import BatchWriter, batch_error
from batcher.codecs.row_files.named_files import NamedFiles
from batcher.codecs.row_files.npz_reading import NpzReader
from batcher.codecs.row_files.npz_writing import NpzWriter
from batcher.codecs.row_files.parquet_reading import ParquetReader
from batcher.codecs.row_files.parquet_writing import ParquetWriter
from batcher.codecs.row_files.text_reading import csv_reader, json_lines_reader
from batcher.codecs.row_files.text_writing import CsvWriter, JsonLinesWriter
from batcher.core.portions import ErrorLine, RowReader, RowWriter, State, error_line
from batcher.core.spec import ModelSpec
from batcher.errors import InvalidInput

JSON_LINES_ENDS = (".jsonl", ".ndjson")
BATCH_END = ".openai.jsonl"
KNOWN = "JSON lines (.jsonl), CSV (.csv), numpy arrays (.npz) or Parquet (.parquet)"


def check_ending(name: str, what: str) -> None:
    """Check that the file `name` is of a known kind. Raises InvalidInput, which says `what` it is.

    A name is checked before anything is read or loaded.
    """
    if _ending(name) not in (*JSON_LINES_ENDS, BATCH_END, ".csv", ".npz", ".parquet"):
        raise InvalidInput(f"{what}: expected {KNOWN}; got {name}")


def is_batch(name: str) -> bool:
    """Return whether the file `name` has requests or answers in OpenAI's form."""
    return _ending(name) == BATCH_END


def is_text(name: str) -> bool:
    """Return whether the rows of the file `name` are lines of text."""
    return _ending(name) in (*JSON_LINES_ENDS, BATCH_END, ".csv")


def _ending(name: str) -> str:
    lower = name.lower()
    return BATCH_END if lower.endswith(BATCH_END) else PurePath(lower).suffix


def reader_of(
    name: str,
    file: BinaryIO,
    spec: ModelSpec,
    csv_header: str,
    max_pixels: int,
    files: NamedFiles | None = None,
) -> RowReader:
    """Return what reads the rows of `file`, whose name is `name`; its lines may name `files`.

    Raises ClientError: the file cannot hold inputs of the model.
    """
    ending = _ending(name)
    if ending == ".npz":
        return NpzReader(file, spec)
    if ending == ".parquet":
        return ParquetReader(file, spec)
    if ending == BATCH_END:
        return BatchReader(file, spec, max_pixels, files)
    if ending in JSON_LINES_ENDS:
        return json_lines_reader(file, spec, max_pixels, files)
    return _csv_reader(file, spec, csv_header)


def _csv_reader(file: BinaryIO, spec: ModelSpec, header: str) -> RowReader:
    """Return what reads CSV. Raises ClientError."""
    if not CSV.carries_inputs(spec):
        raise InvalidInput(
            f"model {spec.name!r}: CSV holds one input, or several of one value each; JSON lines "
            "hold any"
        )
    return csv_reader(file, spec, header)


def writer_of(name: str, spec: ModelSpec, state: State) -> RowWriter:
    """Return what writes the answers of a model, to go on with `state`.

    Raises InvalidInput: the kind of file cannot hold outputs of the model.
    """
    ending = _ending(name)
    if ending == ".npz":
        return NpzWriter(spec, state)
    if ending == ".parquet":
        return ParquetWriter(spec, state)
    if ending == BATCH_END:
        return BatchWriter(spec, state, name)
    if ending in JSON_LINES_ENDS:
        return JsonLinesWriter(spec, state)
    if any(tensor.is_ragged or tensor.unpads for tensor in spec.outputs):
        raise InvalidInput(
            f"model {spec.name!r}: expected outputs of one length for CSV; its rows have several: "
            "JSON lines hold any"
        )
    return CsvWriter(spec, state)


def error_line_of(name: str, place: str) -> ErrorLine:
    """Return what writes the file of errors beside the output `name`.

    `place` says what the places of rows are, such as `line`.
    """
    return partial(batch_error, name) if is_batch(name) else partial(error_line, place)
