"""Addresses of files in place of values: `{"ref": "s3://photos/1.jpg"}`, in JSON and MessagePack.

    by row      {"instances": [{"ref": "…"}, {"image": {"ref": "…"}, "scale": 2}, …]}
    by column   {"inputs": {"image": [{"ref": "…"}, …], "scale": [2, …]}}
                {"inputs": {"image": {"ref": "…"}, "scale": [2]}}

In place of a row a file is one row. In place of a column a file is all rows: those of an array, or
the one row that a picture or a text is. How a file is read, the input says:

| the input            | the file |
|---|---|
| has `image:`         | a picture |
| is BYTES, one a row  | the element, as it is |
| is anything else     | an array of `.npy`, or nested lists in JSON |

Nothing is fetched here. A document is read once without files: then `Unfetched` says which ones are
named. When they are there, the document is read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer, Files
from batcher.codecs.formats.files import rows_from_files, takes_files
from batcher.codecs.formats.images import check_together, opened, rows_from_pictures
from batcher.codecs.formats.json_text import with_json
from batcher.codecs.formats.long_lists import ArrayBuilder, LongList, array_from_value
from batcher.codecs.formats.marks import has_mark
from batcher.codecs.formats.npy import array_of_file
from batcher.codecs.formats.rows import only_name
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.error_text import brief
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ClientError, DecodingError, InvalidInput, TooLarge

REF = "ref"
"""The only member of an object that stands for a file."""

_MARKS = (REF.encode(), b"\\u00")
"""Text without which a document names no file: the name, and the beginning of each code that may
stand for one of its letters.
"""

_NPY = b"\x93NUMPY"


class Unfetched(Exception):
    """A request names files that are not here yet; it is no error.

    Attributes:
        addresses: the addresses of the files, as the client wrote them; one or more.
    """

    def __init__(self, addresses: list[str]) -> None:
        """Keep the addresses."""
        super().__init__(addresses)
        self.addresses = addresses


class _Place(NamedTuple):
    """Where a file stands in a document.

    Attributes:
        holder: the list or object around it.
        key: its index or name there.
        tensor: the input whose value the file is.
        address: where the file lies.
        rows: rows of the column in which the file is one row; 0 where it is the whole column.
    """

    holder: Any
    key: Any
    tensor: TensorSpec
    address: str
    rows: int


def may_name_files(body: Buffer) -> bool:
    """Return whether `body`, JSON or MessagePack, may have the address of a file in it."""
    return has_mark(body, _MARKS)


def with_files(document: Any, spec: ModelSpec, files: Files, limits: DecodingLimits) -> Any:
    """Return `document`, changed so that the content of each file stands in its place.

    Raises:
        Unfetched: files are named that are not here yet.
        DecodingError: a file is not what its input is made of.
        InvalidInput: the values in a file do not fit.
        TooLarge: there are more pixels, rows or bytes than a request may have.
    """
    places = list(_places(document, spec))
    if not places:
        return document
    if files.contents is None:
        raise Unfetched([place.address for place in places])
    _check_pictures(places, files)
    count = Counter(place.tensor.name for place in places)
    known: dict[tuple[str, str, bool], tuple[Any, int, int]] = {}
    taken: Counter[str] = Counter()
    for holder, key, tensor, address, rows in places:
        # A file of which a short body makes thousands of rows is read once.
        of = tensor.name, address, rows > 0
        if of not in known:
            array = rows_of_file(files, address, tensor, limits, is_row=rows > 0)
            # Beside rows that are lists, an array is no row.
            is_mixed = 0 < count[tensor.name] < rows
            known[of] = _value(array, rows > 0, is_mixed), max(rows, len(array)), array.nbytes
        holder[key], all_rows, nbytes = known[of]
        taken[tensor.name] += nbytes
        limits.check(all_rows, taken[tensor.name], tensor.name)
    return document


def _value(array: Array, is_row: bool, is_mixed: bool) -> Any:
    """Return what stands in a document for the rows of a file."""
    value: Any = array[0] if is_row else array
    is_listed = isinstance(value, np.generic) or (is_mixed and isinstance(value, np.ndarray))
    return value.tolist() if is_listed else value


def rows_of_file(
    files: Files, address: str, tensor: TensorSpec, limits: DecodingLimits, is_row: bool = False
) -> Array:
    """Return the rows in a file: one if it `is_row`; shape (rows, *row shape).

    Raises as `with_files` does; errors name the address.
    """
    assert files.contents is not None, "the caller has fetched the files"
    content = files.contents[address]
    try:
        rows = _rows(content, tensor, limits, is_row, files.max_image_pixels)
        if is_row and len(rows) != 1:
            raise InvalidInput(f"expected one row; got {len(rows)}")
    except ClientError as err:
        kinds = (DecodingError, TooLarge, InvalidInput)
        kind = next((kind for kind in kinds if isinstance(err, kind)), ClientError)
        why = str(err).removeprefix("body: ").removeprefix(f"input {tensor.name!r}: ")
        raise kind(f"input {tensor.name!r}, {brief(address, 200)}: {why}") from err
    return rows


def is_long_text(content: bytes, least: int) -> bool:
    """Return whether a file may be nested lists in JSON, in `least` bytes or more."""
    return len(content) >= least and content[:64].lstrip().startswith(b"[")


def _rows(
    content: bytes, tensor: TensorSpec, limits: DecodingLimits, is_row: bool, max_pixels: int
) -> Array:
    if tensor.image is not None:
        return rows_from_pictures([opened(content, "", tensor, max_pixels)], tensor, limits)
    if takes_files(tensor):
        return rows_from_files([content], tensor)
    if content.startswith(_NPY):
        array = array_of_file(content, tensor.name)
        return array[np.newaxis] if is_row and array.ndim == len(tensor.shape) else array
    try:
        return with_json(content, lambda value: _rows_of_lists(value, tensor, limits, is_row))
    except DecodingError as err:
        raise DecodingError(f"expected a file of .npy, or nested lists in JSON: {err}") from err


def _rows_of_lists(value: Any, tensor: TensorSpec, limits: DecodingLimits, is_row: bool) -> Array:
    if not is_row:
        return array_from_value(value, tensor, limits)
    builder = ArrayBuilder(tensor, limits)
    builder.add(value if isinstance(value, LongList) else [value])
    return builder.array()


def _check_pictures(places: list[_Place], files: Files) -> None:
    """Check the heads of all pictures together, before the first picture is decoded."""
    assert files.contents is not None
    pictures = []
    for place in places:
        if place.tensor.image is not None:
            try:
                content = files.contents[place.address]
                pictures.append(opened(content, "", place.tensor, files.max_image_pixels))
            except ClientError:
                continue  # the picture is opened again, and its error named
    check_together(pictures, files.max_image_pixels)


def _places(document: Any, spec: ModelSpec) -> Iterator[_Place]:
    """Yield where files stand in a document of either layout; what is no such layout has none."""
    if not isinstance(document, dict) or ("inputs" in document) == ("instances" in document):
        return
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    only = "" if REF in tensors else only_name(spec)
    if "instances" in document:
        yield from _of_instances(document["instances"], tensors, only)
        return
    columns = document["inputs"]
    if only and (isinstance(columns, list) or _address_in(columns) is not None):
        yield from _of_column(document, "inputs", tensors[only])
    elif isinstance(columns, dict):
        for name in columns.keys() & tensors.keys():
            yield from _of_column(columns, name, tensors[name])


def _of_column(holder: dict[str, Any], key: str, tensor: TensorSpec) -> Iterator[_Place]:
    value = holder[key]
    address = _address_in(value)
    if address is not None:
        yield _Place(holder, key, tensor, address, 0)
    elif isinstance(value, list) and dict in set(map(type, value)):
        for index, row in enumerate(value):
            address = _address_in(row)
            if address is not None:
                yield _Place(value, index, tensor, address, len(value))


def _of_instances(rows: Any, tensors: Mapping[str, TensorSpec], only: str) -> Iterator[_Place]:
    if not isinstance(rows, list):
        return
    for index, row in enumerate(rows):
        address = _address_in(row) if only else None
        if address is not None:
            yield _Place(rows, index, tensors[only], address, len(rows))
        elif isinstance(row, dict):
            for name in row.keys() & tensors.keys():
                address = _address_in(row[name])
                if address is not None:
                    yield _Place(row, name, tensors[name], address, len(rows))


def _address_in(value: Any) -> str | None:
    """Return the address in an object `{"ref": "…"}`; None if `value` is anything else."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    address = value.get(REF)
    return address if isinstance(address, str) else None
