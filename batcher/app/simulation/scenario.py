"""What is simulated: a model's cost, its devices, the load, and what the loop costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batcher.app.simulation.candidates import Candidate, checked_settings
from batcher.app.simulation.costs import BatchCost
from batcher.app.simulation.distributions import Distribution, constant
from batcher.app.simulation.loads import Load, count_of
from batcher.app.simulation.ragged import RaggedRows
from batcher.config.model_settings import ModelSettings

REQUESTS = 10_000
"""Requests of a run: the mean latency under a stable load is then known to a few percent."""


@dataclass(frozen=True)
class Scenario:
    """All but the policy.

    Attributes:
        cost: mean seconds of a batch by its rows.
        load: when requests are sent.
        settings: settings of the model that differ from the defaults, such as `max_batch_size`.
        requests: most requests that are sent; None for all of a trace, and 10,000 of other loads.
        devices: devices, each with its own copy of the model.
        noise: standard deviation of the logarithm of the factor by which batches differ.
        rows: rows of a request.
        ragged: how long rows are and how they are padded; None for rows of one length.
        deadline: seconds from the sending of a request to its deadline; None for no deadline.
        level: priority of a request; None for the model's default.
        loop_cost: seconds of the server's loop for each request.
        client_cost: seconds of the clients' own work for each request.
        loop_noise: the same deviation for the work of the loop and of the clients after a batch.
        cores: 2 if the clients have a core of their own, 1 if they share the loop's.
        warmup: share of the requests, the first ones, that no result counts.
        seed: of all that is drawn; the same seed sends the same requests to every policy.
        later_costs: times in seconds from which batches cost something else, and what.
    """

    cost: BatchCost
    load: Load
    settings: Mapping[str, Any] = field(default_factory=dict)
    requests: int | None = None
    devices: int = 1
    noise: float = 0.0
    rows: Distribution = field(default_factory=lambda: constant(1))
    ragged: RaggedRows | None = None
    deadline: Distribution | None = None
    level: Distribution | None = None
    loop_cost: float = 0.0
    client_cost: float = 0.0
    loop_noise: float = 0.0
    cores: int = 2
    warmup: float = 0.1
    seed: int = 1
    later_costs: tuple[tuple[float, BatchCost], ...] = ()

    def settings_of(self, candidate: Candidate) -> ModelSettings:
        """Return the settings of the model under `candidate`."""
        settings = checked_settings({**self.settings, **candidate.settings})
        # more than a setting may say: such a server binds whatever waits
        depth = {"pipeline_depth": 1 << 30} if candidate.binds_early else {}
        return settings.model_copy(update=depth)

    @property
    def count(self) -> int:
        """Requests that are sent."""
        count = count_of(self.load)
        if count is None:
            return self.requests or REQUESTS
        return min(self.requests or count, count)

    def random(self, stream: int) -> np.random.Generator:
        """Return the generator that draws rows (0), deadlines (1), levels (2) or lengths (3)."""
        return np.random.default_rng((self.seed, stream, 1))

    @property
    def max_batch_size(self) -> int:
        """Most rows of a batch."""
        return checked_settings(self.settings).max_batch_size

    @property
    def capacity(self) -> float:
        """Rows/s of all devices in full batches; of padded rows, in those of the mean length."""
        size = self.full_batch
        return self.devices * size / self.seconds(size)

    @property
    def full_batch(self) -> int:
        """Rows of a full batch; of padded rows, of one of the mean length."""
        settings = checked_settings(self.settings)
        size, most = settings.max_batch_size, settings.max_batch_elements
        if self.ragged is None or most is None:
            return size
        return min(size, max(most // self.ragged.mean_elements, 1))

    def seconds(self, rows: int) -> float:
        """Return the mean seconds of a batch of `rows` rows, of the mean length if padded."""
        return self.cost.seconds(rows, self.ragged.mean_elements if self.ragged else 0)
