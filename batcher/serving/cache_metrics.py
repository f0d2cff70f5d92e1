"""The numbers of answers that are kept, and their Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from batcher.serving.caching.local_store import LocalStore
from batcher.serving.counts_by_version import CountsByVersion

MAX_CACHES = 200
"""Caches whose numbers are kept, each some 500 bytes; models may get a new version each hour."""

_LABELS = ("model", "version")


class RedisCounts:
    """What a version had of the answers of other servers. Reactor thread.

    Attributes:
        looks: requests by what became of their look into Redis: `hit`, `miss`, `late` without a
            reply in time, `wrong` where what stood there was no answer, `failed` where Redis or the
            connection did, `away` if Redis was not asked.
        writes: answers by what became of them on their way there: `kept`, `failed`, or `dropped`
            where Redis was not asked or too much was under way.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.looks: dict[str, int] = defaultdict(int)
        self.writes: dict[str, int] = defaultdict(int)


class CacheCounts:
    """What the cache of one version has done. Reactor thread.

    Attributes:
        outcomes: requests by outcome: `hit` if their answer was kept, `joined` if an equal request
            was running, `miss` if the model ran, `skipped` if they asked for that.
        left_out: answers that were not kept, by reason: `score`, `large`, `busy` where the pool
            that packs large ones was full.
        store: has what is kept; None once the version is gone.
        redis: numbers of what is shared with other servers.
        decoded: requests whose decoded inputs were kept, `hit`, or not, `miss`.
        prepared: the same of what `preprocess` makes.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.outcomes: dict[str, int] = {"hit": 0, "joined": 0, "miss": 0, "skipped": 0}
        self.left_out: dict[str, int] = defaultdict(int)
        self.store: LocalStore | None = None
        self.redis = RedisCounts()
        self.decoded: dict[str, int] = defaultdict(int)
        self.prepared: dict[str, int] = defaultdict(int)
        self._evicted = 0

    @property
    def ratio(self) -> float:
        """The share of the requests that were answered without a row of their own."""
        saved = self.outcomes["hit"] + self.outcomes["joined"]
        return saved / ((saved + self.outcomes["miss"]) or 1)

    @property
    def evicted(self) -> int:
        """Answers that had to go for others, of earlier stores of the version as well."""
        return self._evicted + (0 if self.store is None else self.store.evicted)

    def begin(self, store: LocalStore) -> None:
        """Count what `store` keeps from now on, in place of an earlier one."""
        self._evicted = self.evicted
        self.store = store

    def end(self, store: LocalStore) -> None:
        """Count no more what `store` keeps."""
        if self.store is store:
            self._evicted, self.store = self.evicted, None


class CacheMetrics(CountsByVersion[CacheCounts]):
    """Counts of every cache. Reactor thread."""

    def __init__(self) -> None:
        """Start without caches."""
        super().__init__(CacheCounts, MAX_CACHES)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; none where there is no cache."""
        if self._counts:
            text = "Requests to models whose answers are kept, by outcome."
            yield self._labelled("batcher_cache_requests", text, "outcome", "outcomes")
            text = "Answers that were not kept, by reason."
            yield self._labelled("batcher_cache_left_out", text, "reason", "left_out")
            yield from self._stores()
            yield from self._where_asked_for()

    def _where_asked_for(self) -> Iterator[Metric]:
        text = "Requests by what became of their look into Redis."
        looks = self._labelled("batcher_cache_redis_looks", text, "outcome", "redis.looks")
        text = "Answers by what became of them on their way to Redis."
        writes = self._labelled("batcher_cache_redis_writes", text, "outcome", "redis.writes")
        text = "Requests by whether their decoded inputs were kept."
        decoded = self._labelled("batcher_cache_decoded", text, "outcome", "decoded")
        text = "Requests by whether their inputs after preprocess were kept."
        prepared = self._labelled("batcher_cache_prepared", text, "outcome", "prepared")
        found = (looks, writes, decoded, prepared)
        yield from (family for family in found if family.samples)

    def _labelled(self, name: str, text: str, label: str, attribute: str) -> Metric:
        family = CounterMetricFamily(name, text, labels=(*_LABELS, label))
        numbers = attrgetter(attribute)
        for labels, counts in self._counts.items():
            for value, count in numbers(counts).items():
                family.add_metric((*labels, value), count)
        return family

    def _stores(self) -> Iterator[Metric]:
        text = "Answers that had to go for others."
        evicted = CounterMetricFamily("batcher_cache_evicted", text, labels=_LABELS)
        nbytes = GaugeMetricFamily("batcher_cache_bytes", "Bytes of kept answers.", labels=_LABELS)
        entries = GaugeMetricFamily("batcher_cache_entries", "Kept answers.", labels=_LABELS)
        for labels, counts in self._counts.items():
            evicted.add_metric(labels, counts.evicted)
            if counts.store is not None:
                nbytes.add_metric(labels, counts.store.nbytes)
                entries.add_metric(labels, len(counts.store))
        yield from (evicted, nbytes, entries)
