"""Plain counters as a scrape turns them into text, read back with Prometheus' own parser."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from batcher.config.model_settings import ModelSettings
from batcher.core.counters import BATCH_SIZE_BOUNDS, DURATION_BOUNDS_S, Histogram
from batcher.core.device_work import DeviceWork
from batcher.serving.metrics import MAX_ENDED_VERSIONS, METRICS_CONTENT_TYPE, ServerMetrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Waiting:
    queue_rows: int = 3
    queue_bytes: int = 48
    in_flight_rows: int = 8
    ceiling_rows: int = 32


def scraped(metrics: ServerMetrics) -> Samples:
    """Return every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: ServerMetrics, name: str, **labels: str) -> float | None:
    return scraped(metrics).get((name, tuple(sorted(labels.items()))))


@given(
    st.lists(st.floats(0, 100, allow_nan=False), max_size=50),
    st.sampled_from([DURATION_BOUNDS_S, BATCH_SIZE_BOUNDS]),
)
def test_a_histogram_counts_every_value_under_every_bound_that_it_does_not_exceed(
    values: list[float], bounds: tuple[float, ...]
) -> None:
    histogram = Histogram(bounds)
    for each in values:
        histogram.observe(each)
    assert dict(histogram.buckets()) == {
        **{repr(bound): sum(each <= bound for each in values) for bound in bounds},
        "+Inf": len(values),
    }
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))


@given(st.lists(st.floats(0, 100, allow_nan=False), max_size=50))
def test_values_that_are_counted_together_count_as_if_one_by_one(values: list[float]) -> None:
    together, apart = Histogram(DURATION_BOUNDS_S), Histogram(DURATION_BOUNDS_S)
    together.observe_all(iter(values))
    for each in values:
        apart.observe(each)
    assert together.buckets() == apart.buckets()
    assert together.total == apart.total


def test_the_buckets_of_batch_sizes_are_exact_at_powers_of_two() -> None:
    histogram = Histogram(BATCH_SIZE_BOUNDS)
    histogram.observe(64)
    buckets = dict(histogram.buckets())
    assert (buckets["32.0"], buckets["64.0"], buckets["128.0"]) == (0, 1, 1)


def test_a_request_is_counted_by_model_route_and_status() -> None:
    metrics = ServerMetrics()
    metrics.answers["m", "/predict"].observe(200, 0.004)
    metrics.answers["m", "/predict"].observe(200, 0.3)
    metrics.answers["", "/livez"].observe(200, 0.001)
    metrics.answers["m", "/predict"].observe(499, 1.0)
    assert value(metrics, "batcher_requests_total", model="m", route="/predict", code="200") == 2
    assert value(metrics, "batcher_requests_total", model="m", route="/predict", code="499") == 1
    assert value(metrics, "batcher_requests_total", model="", route="/livez", code="200") == 1


def test_a_requests_latency_falls_into_its_bucket() -> None:
    metrics = ServerMetrics()
    metrics.answers["m", "/predict"].observe(200, 0.004)
    metrics.answers["m", "/predict"].observe(503, 40.0)
    name, labels = "batcher_request_duration_seconds", {"model": "m", "route": "/predict"}
    assert value(metrics, f"{name}_bucket", **labels, le="0.002") == 0
    assert value(metrics, f"{name}_bucket", **labels, le="0.005") == 1
    assert value(metrics, f"{name}_bucket", **labels, le="30.0") == 1
    assert value(metrics, f"{name}_bucket", **labels, le="+Inf") == 2
    assert value(metrics, f"{name}_count", **labels) == 2
    assert value(metrics, f"{name}_sum", **labels) == pytest.approx(40.004)


def test_what_waits_and_runs_is_read_at_the_scrape() -> None:
    metrics, load = ServerMetrics(), Waiting()
    metrics.model("m", "1").load = load
    assert value(metrics, "batcher_queue_rows", model="m", version="1") == 3
    load.queue_rows = 5
    assert value(metrics, "batcher_queue_rows", model="m", version="1") == 5
    assert value(metrics, "batcher_queue_bytes", model="m", version="1") == 48
    assert value(metrics, "batcher_in_flight_rows", model="m", version="1") == 8
    assert value(metrics, "batcher_batch_ceiling_rows", model="m", version="1") == 32


def test_a_model_that_has_no_queue_yet_has_no_gauge() -> None:
    metrics = ServerMetrics()
    metrics.model("m", "1")
    assert value(metrics, "batcher_queue_rows", model="m", version="1") is None


def test_work_of_a_gpu_is_counted_by_version() -> None:
    metrics, labels = ServerMetrics(), {"model": "m", "version": "2"}
    for _ in range(2):
        metrics.model("m", "2").count_work(DeviceWork(3, 40, 50))
    metrics.model("m", "2").padded_rows += 4
    assert value(metrics, "batcher_graph_replays_total", **labels) == 6
    assert value(metrics, "batcher_padded_rows_total", **labels) == 4
    assert value(metrics, "batcher_copied_bytes_total", **labels, direction="to_device") == 80
    assert value(metrics, "batcher_copied_bytes_total", **labels, direction="to_host") == 100


def test_a_models_batches_are_counted_by_version_and_reason() -> None:
    metrics = ServerMetrics()
    model = metrics.model("m", "2")
    model.flushes["idle"] += 2
    model.flushes["full"] += 1
    model.batch_size.observe(64)
    model.queue_wait.observe(0.001)
    model.model_time.observe(0.02)
    model.failed_batches += 1
    model.rejected_rows["queue_full"] += 7
    labels = {"model": "m", "version": "2"}
    assert value(metrics, "batcher_batch_flush_total", **labels, reason="idle") == 2
    assert value(metrics, "batcher_batch_flush_total", **labels, reason="full") == 1
    assert value(metrics, "batcher_batch_size_bucket", **labels, le="64.0") == 1
    assert value(metrics, "batcher_batch_size_bucket", **labels, le="32.0") == 0
    assert value(metrics, "batcher_queue_wait_seconds_count", **labels) == 1
    assert value(metrics, "batcher_model_seconds_sum", **labels) == pytest.approx(0.02)
    assert value(metrics, "batcher_failed_batches_total", **labels) == 1
    assert value(metrics, "batcher_rejected_rows_total", **labels, reason="queue_full") == 7


def test_rows_that_were_cancelled_or_expired_are_counted_from_zero_by_where_they_were() -> None:
    metrics = ServerMetrics()
    model = metrics.model("m", "1")
    labels = {"model": "m", "version": "1"}
    for stage in ("queued", "in_flight"):
        assert value(metrics, "batcher_cancelled_rows_total", **labels, stage=stage) == 0
        assert value(metrics, "batcher_expired_rows_total", **labels, stage=stage) == 0
    model.cancelled_rows["queued"] += 4
    model.expired_rows["in_flight"] += 2
    assert value(metrics, "batcher_cancelled_rows_total", **labels, stage="queued") == 4
    assert value(metrics, "batcher_expired_rows_total", **labels, stage="in_flight") == 2


def test_a_version_that_is_loaded_again_goes_on_counting() -> None:
    metrics = ServerMetrics()
    metrics.model("m", "1").failed_batches = 3
    assert metrics.model("m", "1").failed_batches == 3
    assert metrics.model("m", "2").failed_batches == 0


def test_of_versions_that_have_ended_the_last_hundred_are_kept() -> None:
    metrics = ServerMetrics()
    metrics.model("serves", "1").failed_batches = 7
    for version in range(MAX_ENDED_VERSIONS + 2):
        metrics.model("m", str(version)).failed_batches = 3
        metrics.ended("m", str(version))
        metrics.model("m", "0")  # which serves again
    labels = [dict(labels) for name, labels in scraped(metrics) if "failed_batches" in name]
    found = {each["version"] for each in labels if each["model"] == "m"}
    assert found == {*map(str, range(MAX_ENDED_VERSIONS + 2))} - {"1"}
    assert value(metrics, "batcher_failed_batches_total", model="serves", version="1") == 7
    assert metrics.model("m", "0").failed_batches == 3


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = ServerMetrics(), ServerMetrics()
    one.answers["m", "/predict"].observe(200, 0.1)
    one.connections = 5
    assert value(one, "batcher_connections") == 5
    assert value(other, "batcher_connections") == 0
    assert value(other, "batcher_requests_total", model="m", route="/predict", code="200") is None


def test_the_process_itself_is_measured_too() -> None:
    names = {name for name, _ in scraped(ServerMetrics())}
    assert {"process_cpu_seconds_total", "python_info", "python_gc_collections_total"} <= names


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_name_of_a_model_survives_the_text_format(name: str) -> None:
    metrics = ServerMetrics()
    metrics.answers[name, "/predict"].observe(200, 0.1)
    assert value(metrics, "batcher_requests_total", model=name, route="/predict", code="200") == 1


def test_every_metric_has_a_unique_name_of_this_server_and_a_help_text() -> None:
    families = [
        family
        for family in text_string_to_metric_families(ServerMetrics().render().decode())
        if "batcher" in family.name
    ]
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(name.startswith("batcher_") for name in names)
    assert all(family.documentation.endswith(".") for family in families)


def test_the_content_type_names_the_text_format() -> None:
    assert METRICS_CONTENT_TYPE.startswith("text/plain; version=")


def test_lines_that_could_not_be_written_are_counted_by_output() -> None:
    metrics = ServerMetrics()
    metrics.dropped_lines["access_log"] += 2
    assert value(metrics, "batcher_dropped_lines_total", output="access_log") == 2
    metrics.dropped_lines["stderr"] += 3
    metrics.dropped_by_outputs = lambda: {"stdout": 0, "stderr": 4}
    assert value(metrics, "batcher_dropped_lines_total", output="stderr") == 7
    assert value(metrics, "batcher_dropped_lines_total", output="stdout") == 0


@pytest.mark.parametrize("field", ["watchdog_s", "timeout_ms", "slo_ms"])
def test_histograms_reach_as_far_as_any_time_that_a_setting_allows(field: str) -> None:
    (longest,) = [
        rule.le for rule in ModelSettings.model_fields[field].metadata if hasattr(rule, "le")
    ]
    seconds = longest / 1000 if field.endswith("_ms") else longest
    assert max(DURATION_BOUNDS_S) >= seconds
    histogram = Histogram(DURATION_BOUNDS_S)
    histogram.observe(seconds)
    assert dict(histogram.buckets())[repr(max(DURATION_BOUNDS_S))] == 1


def test_marks_of_a_version_are_kept_while_it_serves() -> None:
    metrics = ServerMetrics()
    counts = metrics.model("m", "1")
    counts.load = SimpleNamespace(in_flight_rows=0)  # type: ignore[assignment]
    for second in range(3):
        counts.count_sent(4, "idle")
        metrics.note(float(second))
    window = counts.history.window(counts.mark(3.0, 0.0))
    assert window is not None
    assert [mark.flushes["idle"] for mark in window] == [1, 3]
    metrics.ended("m", "1")
    metrics.note(4.0)
    assert counts.history.window(counts.mark(5.0, 0.0)) is None
