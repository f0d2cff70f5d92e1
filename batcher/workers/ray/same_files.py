"""Whether the files of a model are the same on two machines.

A node finds a model at the same path as the server: on a shared file system, in the image, or in a
folder that is copied to every node. Nothing is sent. Weights are gigabytes, Ray would keep them in
the memory that batches cross in, and the code of a model may read whatever lies beside it.

If one node had another version of the files, an answer would depend on who computes it. So the
server says what it has, and a node that has something else refuses to load.

Refused: to compare every file of the folder. A model may keep a cache or a log there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError
from batcher.models.file_facts import MAX_READ_BYTES, facts_of

Content = tuple[int, int | None]
"""Bytes of a file, and its checksum unless it is so large that only the size is compared."""


def contents(definition: ModelDefinition) -> dict[str, Content]:
    """Return what the files of a model hold, by their paths: code, weights and the model's file.

    Raises OSError: a file cannot be read. Any thread.
    """
    return {str(path): _content(path) for path in sorted(_files(definition))}


def check_same(expected: dict[str, Content], node: str) -> None:
    """Check that this machine, the node `node`, has the files that the server has.

    Raises:
        ModelLoadError: a file is missing or another one; the message names the file.

    Any thread.
    """
    for name, content in expected.items():
        path = Path(name)
        if not path.is_file():
            raise ModelLoadError(
                f"expected {name} on node {node}, as on the machine of the server; there is none. "
                "A shared file system has it everywhere"
            )
        if _content(path) != content:
            raise ModelLoadError(
                f"expected {name} on node {node} to be the file that the server has; it is another"
            )


def _files(definition: ModelDefinition) -> Iterator[Path]:
    for path in (definition.file, definition.weights):
        if path is not None and path.is_file():
            yield path
    if definition.file.is_dir() and definition.file != definition.folder:
        yield from (path for path in definition.file.rglob("*") if path.is_file())
    if not definition.is_single:
        yield from definition.folder.glob("*.py")


def _content(path: Path) -> Content:
    facts = facts_of(path)
    return facts.size, facts.checksum if facts.size <= MAX_READ_BYTES else None
