"""The model in this process, as the server runs it, for batches of chosen sizes.

A real server is started here: with its queue, its worker of the kind that the settings name, and
hooks. Only the moment at which the worker may take a batch is chosen by hand:

    1. the worker is closed                 so whatever comes waits
    2. b requests of one row are sent       hooks and all, until the queue has b rows
    3. the worker is opened                 it takes all of them as one batch

What counts are the seconds that the worker took, from putting rows together to cutting outputs:
those that the scheduler learns too. Padded rows of a batch are all of one length. Should the queue
make several batches of them after all, the seconds from 3 to the last answer count.

With several instances each gets a batch of its own at once, since they share cores or a device.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import FirstError, gatherResults
from twisted.python.failure import Failure

from batcher.app.run import make_service
from batcher.app.tuning.lengths import RowSize
from batcher.app.tuning.sample_rows import Lengths, Row, padded_rows
from batcher.app.tuning.subject import Changes, Subject
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.error_text import message
from batcher.core.padding import RaggedGroup
from batcher.core.request import InferenceResponse
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, ConfigError
from batcher.models.protocol import Arrays
from batcher.models.sample import sample_of
from batcher.serving.model_version import ModelVersion

MOST_TIMEOUT_MS = 3_600_000
"""Deadline of a batch that is measured, where a load may take any time."""


class LoadedModel:
    """One loaded model and the requests that it is sent. Reactor thread.

    Attributes:
        rows: the different requests, each of one row.
        words: where the lengths of padded rows come from; empty where rows have none.
    """

    def __init__(self, version: ModelVersion, asked: Lengths, metrics: ModelMetrics) -> None:
        """Send `version`, which is ready and counts in `metrics`, rows of the lengths `asked` for.

        Raises:
            ConfigError: there are no rows to be sent.
        """
        self.rows, self.words = padded_rows(version.spec, _sample(version), asked)
        self._version = version
        self._title = f"model {version.spec.name}/{version.spec.version}"
        self._metrics = metrics
        self._instances = range(version.settings.instances)
        self._rows = cycle(self.rows)
        self._open(False)

    @property
    def spec(self) -> ModelSpec:
        """Inputs and outputs of the model."""
        return self._version.spec

    async def sizes(self) -> list[RowSize]:
        """Return the elements of each of the rows; nothing where rows are not padded.

        Raises:
            ConfigError: the model fails on the rows.
        """
        if not self.spec.is_padded:
            return []
        return [await self._size(row) for row in self.rows]

    async def _size(self, row: Row) -> RowSize:
        group = self._version.scheduler.group_key(row)  # type: ignore[misc]  # padded rows have one
        if isinstance(group, RaggedGroup):
            lengths = group.padding.lengths_of(row)
            return RowSize(group.own_elements(row), group.padded_to(lengths).elements)
        metrics, count = self._metrics, len(self._instances)
        own, padded = metrics.real_elements, metrics.padded_elements
        await self.run(1, row)
        return RowSize(
            (metrics.real_elements - own) // count, (metrics.padded_elements - padded) // count
        )

    async def run(self, rows: int, row: Row | None = None) -> float | None:
        """Return the seconds of a batch of `rows` rows; None if it did not run as one.

        All are the same `row`; without it, one row follows the other.

        Raises:
            ConfigError: the model fails on the rows.
        """
        try:
            return await self._run([row or next(self._rows) for _ in range(rows)])
        except BatcherError as err:
            count = f"{rows} row{'s' * (rows != 1)}"
            raise ConfigError(
                f"{self._title}: expected answers to {count}; got an error: {message(err)}. What "
                "else may be wrong with the model says `batcher check --model`"
            ) from err

    async def _run(self, rows: list[Row]) -> float | None:
        scheduler = self._version.scheduler
        sent, began = [], 0.0
        for instance in self._instances:
            sent += [self._version.infer(row) for row in rows]
            while scheduler.queue_rows < len(rows) and not any(each.called for each in sent):
                await asyncio.sleep(0)
            began = began or perf_counter()
            scheduler.set_alive(instance, True)
            scheduler.set_alive(instance, False)
        self._open(True)  # for rows that did not fit into one batch
        try:
            together = gatherResults(sent, consumeErrors=True)
            answers = await together.asFuture(asyncio.get_running_loop())
        except FirstError as err:
            failure: Failure = err.subFailure
            failure.raiseException()
        finally:
            self._open(False)
        return self._seconds(answers, len(rows), perf_counter() - began)

    def _seconds(self, answers: list[InferenceResponse], rows: int, whole: float) -> float | None:
        if any(answer.batch_size != rows for answer in answers):
            return whole if self._version.spec.is_padded else None
        return max(answer.compute for answer in answers)

    def _open(self, is_open: bool) -> None:
        for instance in self._instances:
            self._version.scheduler.set_alive(instance, is_open)


def _sample(version: ModelVersion) -> Arrays | None:
    """Return all rows of the sample of a model whose rows are padded; of another one, the first."""
    file = version.definition.sample
    if file is None or not version.spec.is_padded:
        return version.sample
    return sample_of(version.definition, None)


@asynccontextmanager
async def loaded(
    subject: Subject,
    changes: Changes,
    asked: Lengths,
    reactor: AsyncioSelectorReactor,
    most: int,
) -> AsyncIterator[LoadedModel]:
    """Load the model with `changes`, for batches of up to `most` rows; let go of it at the end.

    Raises:
        BatcherError: it cannot be loaded or sent anything.
    """
    loop, name = asyncio.get_running_loop(), subject.found.name
    own = {**_openly(subject.present, most), **subject.without_warmup, **changes}
    settings = subject.settings({name: own})
    service = make_service(settings, Path.cwd(), loop, reactor, lambda title, text: None)
    service.startService()
    try:
        await service.ready.asFuture(loop)
        version = service.server.ready_model(name)
        metrics = service.server.metrics.model(version.spec.name, version.spec.version)
        yield LoadedModel(version, asked, metrics)
    finally:
        await service.stopService().asFuture(loop)


def _openly(present: ModelSettings, most: int) -> dict[str, Any]:
    """Return settings with which whatever waits is sent at once, up to `most` rows."""
    return {
        "max_batch_size": most,
        "max_batch_elements": None,
        "max_queue_rows": max(2 * most, present.max_queue_rows),
        "policy": "eager",
        "max_delay_ms": 0,
        "preferred_batch_sizes": [],
        "timeout_ms": present.load_timeout_s * 1e3 or MOST_TIMEOUT_MS,
    }
