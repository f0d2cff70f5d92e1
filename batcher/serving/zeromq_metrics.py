"""What is counted of the clients of ZeroMQ."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class ZeromqMetrics:
    """Counts of the ZeroMQ front.

    Attributes:
        peers: clients that have asked something and are connected.
        waiting_bytes: bytes of answers that wait for clients to read.
        dropped_answers: answers that gave way to an error, since their clients did not read.
        ignored_messages: messages without an id, which nothing can answer.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.peers = 0
        self.waiting_bytes = 0
        self.dropped_answers = 0
        self.ignored_messages = 0

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        text = "Clients of ZeroMQ that have asked something."
        yield GaugeMetricFamily("batcher_zeromq_peers", text, value=self.peers)
        text = "Bytes of answers that wait for clients of ZeroMQ to read."
        yield GaugeMetricFamily("batcher_zeromq_waiting_bytes", text, value=self.waiting_bytes)
        text = "Answers that gave way to an error, since their clients of ZeroMQ did not read."
        dropped = self.dropped_answers
        yield CounterMetricFamily("batcher_zeromq_dropped_answers", text, value=dropped)
        text = "Messages of ZeroMQ without an id, which nothing can answer."
        ignored = self.ignored_messages
        yield CounterMetricFamily("batcher_zeromq_ignored_messages", text, value=ignored)
