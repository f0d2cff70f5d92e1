"""What parent and child say to each other; small, and pickled: both are the same program.

Arrays lie in slots.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from pickle import HIGHEST_PROTOCOL, dumps
from typing import NamedTuple

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.workers.process.told_error import ToldError
from batcher.workers.shared_memory.packing import Place


class Prepare(NamedTuple):
    """To the child, first: import what the model will need, and wait for anything that says to load it."""

    definition: ModelDefinition
    settings: ModelSettings


class Load(NamedTuple):
    """To the child, second: load the model."""


class Run(NamedTuple):
    """To the child: run the batch `number` of `rows` rows whose inputs lie in the slot `slot`, which is taken up to `end`."""

    number: int
    slot: int
    table: list[Place]
    end: int
    rows: int


class Doing(NamedTuple):
    """From the child: what it does while it loads."""

    text: str


class Ready(NamedTuple):
    """From the child: the model is loaded.

    Seconds of a batch by its rows, and whether it has hooks.
    """

    timings: dict[int, float]
    has_hooks: bool


class Refused(NamedTuple):
    """From the child, which ends then: the model cannot be loaded."""

    reason: str


class Done(NamedTuple):
    """From the child: where the outputs of the batch `number` lie, up to where its slot is taken, and which rows failed."""

    number: int
    table: list[Place]
    end: int
    failed: dict[int, ToldError]


class Failed(NamedTuple):
    """From the child: the batch `number` failed."""

    number: int
    error: ToldError


def send(connection: Connection, message: object) -> None:
    """Send `message`, which `connection.recv` returns at the other end.

    The pickler of `connection.send` is twice as slow.

    Raises:
        OSError: there is nobody at the other end.
    """
    connection.send_bytes(dumps(message, HIGHEST_PROTOCOL))
