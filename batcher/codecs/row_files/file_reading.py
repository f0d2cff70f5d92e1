"""Rows that are files of a folder: pictures, or any files for a model of one BYTES input.

The files are read in the order of their names. Several are decoded at once, since a picture takes
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from batcher.codecs.formats.files import rows_from_files, takes_files
from batcher.codecs.formats.images import opened, rows_from_pictures
from batcher.codecs.row_files.grouping import Inputs, grouped, merged
from batcher.core.decoding_limits import NO_LIMITS
from batcher.core.portions import Group, Portion, Position
from batcher.core.spec import Array, ModelSpec
from batcher.errors import BatcherError, ClientError, InvalidInput

RunAll = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""Runs functions, several at once, and returns their results in order."""

Read = Callable[[str], bytes]
"""Returns the content of a file."""


class FilesReader:
    """Reads one row from each file.

    Attributes:
        begin: the position of the first file.
        place: what the names of rows name.
    """

    begin: Position = [0]  # noqa: RUF012  # nobody changes it
    place = "file"

    def __init__(
        self, names: Sequence[str], read: Read, spec: ModelSpec, max_pixels: int, run_all: RunAll
    ) -> None:
        """Read the files `names` by `read`. Raises InvalidInput: the model takes no files."""
        if len(spec.required) != 1 or not _takes_a_file(spec):
            raise InvalidInput(
                f"model {spec.name!r}: expected a model of one input of pictures (`image:` in "
                "model.yaml) or of BYTES for the files of a folder; got inputs "
                + ", ".join(f"{tensor.name} {tensor.describe()}" for tensor in spec.inputs)
            )
        self._names = names
        self._read = read
        self._spec = spec
        self._tensor = spec.required[0]
        self._max_pixels = max_pixels
        self._run_all = run_all

    def read(self, position: Position, rows: int) -> Portion | None:
        """Return the rows of the next files from `position` on: `rows` good ones if there are."""
        (first,) = position
        groups: list[Group] = []
        bad: dict[int, BatcherError] = {}
        end, good = first, 0
        while good < rows and end < len(self._names) and end - first < 2 * rows:
            names = self._names[end : end + rows - good]
            more, worse = self._rows(names, end - first)
            end += len(names)
            groups += more
            bad |= worse
            good += sum(len(group.rows) for group in more)
        if end == first:
            return None
        places = self._names[first:end]
        return Portion(places, merged(groups), bad, [end], end / len(self._names))

    def _rows(
        self, names: Sequence[str], first: int
    ) -> tuple[list[Group], dict[int, BatcherError]]:
        """Decode the files `names`, the first of which is the row `first` of its portion."""
        decoded = self._run_all([partial(self._decoded, name) for name in names])
        bad = {
            first + row: found
            for row, found in enumerate(decoded)
            if isinstance(found, BatcherError)
        }
        rows = [first + row for row in range(len(names)) if first + row not in bad]
        arrays = [found for found in decoded if not isinstance(found, BatcherError)]

        def decode(start: int, stop: int) -> Inputs:
            shapes = {array.shape for array in arrays[start:stop]}
            if len(shapes) > 1:
                raise InvalidInput(f"expected rows of one shape; got {len(shapes)}")
            return {self._tensor.name: np.concatenate(arrays[start:stop])}

        groups, worse = grouped(self._spec, rows, decode)
        return groups, bad | worse

    def _decoded(self, name: str) -> Array | BatcherError:
        """Return the row that a file is, or why it is none. Any thread."""
        tensor = self._tensor
        try:
            content = self._read(name)
            if tensor.image is None:
                return rows_from_files([content], tensor)
            picture = opened(content, "", tensor, self._max_pixels)
            return rows_from_pictures([picture], tensor, NO_LIMITS)
        except ClientError as err:
            return err


def _takes_a_file(spec: ModelSpec) -> bool:
    return spec.required[0].image is not None or takes_files(spec.required[0])
