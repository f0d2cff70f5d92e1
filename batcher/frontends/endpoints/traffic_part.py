"""The part of a model's page that says who answers: versions that share requests, and the cache."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from batcher.errors import BatcherError
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.markup import paragraphs, table
from batcher.serving.monitoring.wording import percent


def traffic_part(engine: Engine, model: str) -> str:
    """Return the part as markup; empty where one version has all requests. Reactor thread."""
    parts = (_canary, _variants, _shadows, _caches)
    return "".join(text for part in parts for text in part(engine, model))


def _canary(engine: Engine, model: str) -> Iterator[str]:
    try:
        status = engine.traffic.canary(model).status()
    except BatcherError:  # the model has no canary
        return
    yield "<h2>Rollout</h2>"
    if "candidate" not in status:
        yield paragraphs(["No version is on trial yet."])
        return
    outcome = status["outcome"].replace("_", " ")
    yield paragraphs(
        [
            f"Version {status['candidate']} against version {status['stable']}: {outcome}, "
            f"{status['percent']:g} % of the requests: {status['reason']}.",
            *([f"Now {status['note']}."] if status["note"] else []),
        ]
    )
    yield table(("what", "value"), _figures(status))


def _figures(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    steps = ", ".join(f"{step:g} %" for step in status["steps"])
    yield "step", f"{status['step']} of {escape(steps)}"
    yield "answers in this step", f"{status['answers_in_step']:,} of {status['min_requests']:,}"
    yield "seconds in this step", f"{status['seconds_in_step']:,.0f} of {status['every_s']:,.0f}"
    for test, evidence in status["evidence"].items():
        yield f"evidence of {test.replace('_', ' ')}", f"{evidence} of {status['rolled_back_at']}"


def _variants(engine: Engine, model: str) -> Iterator[str]:
    found = engine.metrics.variants.of_model(model)
    if found:
        total = sum(sum(counts.outcomes.values()) for counts in found.values()) or 1
        rows = [
            (
                escape(version),
                percent(sum(counts.outcomes.values()) / total),
                *(f"{counts.outcomes.get(name, 0):,}" for name in ("ok", "failed")),
                f"{1e3 * counts.latency.total / (counts.latency.count or 1):.1f} ms",
            )
            for version, counts in found.items()
        ]
        head = ("version", "share so far", "answered", "failed", "mean time")
        yield f"<h2>Versions that share the requests</h2>{table(head, rows)}"


def _shadows(engine: Engine, model: str) -> Iterator[str]:
    found = engine.metrics.shadows.of_model(model)
    if found:
        names = ("same", "different", "failed", "dropped", "not_ready")
        rows = [
            (
                escape(version),
                *(f"{counts.outcomes.get(name, 0):,}" for name in names),
                percent(counts.rows["agreeing"] / (counts.rows["labelled"] or 1)),
            )
            for version, counts in found.items()
        ]
        head = ("version", *(name.replace("_", " ") for name in names), "rows of the same class")
        yield f"<h2>Copies for a shadow</h2>{table(head, rows)}"


def _caches(engine: Engine, model: str) -> Iterator[str]:
    found = engine.metrics.caches.of_model(model)
    if found:
        rows = [
            (
                escape(version),
                percent(counts.ratio),
                *(f"{counts.outcomes[name]:,}" for name in ("hit", "joined", "miss", "skipped")),
                "" if counts.store is None else f"{len(counts.store):,}",
                "" if counts.store is None else f"{counts.store.nbytes:,}",
            )
            for version, counts in found.items()
        ]
        words = ("answered without the model", "kept before", "joined", "run", "asked to be run")
        yield f"<h2>Kept answers</h2>{table(('version', *words, 'kept now', 'bytes'), rows)}"
