"""The tree of failures: each class, and the table of all in the module's docstring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batcher import errors
from batcher.errors import BatcherError


def classes(root: type[BatcherError], depth: int = 0) -> Iterator[tuple[type[BatcherError], int]]:
    """Yield every class below `root` with its depth in the tree."""
    yield root, depth
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from classes(child, depth + 1)


TREE = list(classes(BatcherError))


@pytest.mark.parametrize(("error", "depth"), TREE, ids=[error.__name__ for error, _ in TREE])
def test_the_docstring_draws_every_failure_with_its_hints(
    error: type[BatcherError], depth: int
) -> None:
    lines = (errors.__doc__ or "").splitlines()
    (line,) = (line for line in lines if line.strip("| +-").split(" ")[0] == error.__name__)
    assert line.index(error.__name__) == 4 + 4 * depth
    assert line.split(error.__name__)[1].split()[:2] == [str(error.http_status), error.grpc_code]


def test_programs_can_tell_failures_apart_by_their_words() -> None:
    words = [error.code for error, _ in TREE if error.code != BatcherError.code]
    assert sorted(words) == sorted(set(words))
