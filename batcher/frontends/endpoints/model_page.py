"""The page of one model: why its batches are as they are, in words, with the numbers behind them.

The page asks for itself again every few seconds, without a script, so that it follows the load.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from twisted.internet.defer import Deferred

from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.markup import chart, page, paragraphs, table
from batcher.frontends.endpoints.pipeline_part import pipeline_part
from batcher.frontends.endpoints.traffic_part import traffic_part
from batcher.serving.model_version import ModelVersion
from batcher.serving.monitoring.explaining import explain
from batcher.serving.monitoring.facts import Facts, facts_of
from batcher.serving.monitoring.wording import number, percent, several, time_text

REFRESH_S = 10
"""Seconds after which a browser asks again: long enough to read, short enough to see a change."""

REASONS = {
    "full": "it could not grow",
    "idle": "the model was free, and these were all rows that waited",
    "shape": "the model was free, and the other rows that waited have other shapes",
    "waited": "clients that return were waited for, or the delay was over",
    "deadline": "waiting longer would have made a request late",
    "drain": "the server is being stopped",
    "bulk": "only bulk requests waited",
    "isolate": "it is a part of a batch that raised",
    "retry": "its worker had ended",
    "memory": "it is a part of a batch that did not fit into the device's memory",
}
"""What each flush reason means: a batch was sent because ..."""


class ModelPage:
    """`/models/{name}`, and the same of one version. Reactor thread."""

    def __init__(self, engine: Engine, disclosure: Disclosure) -> None:
        """Show the models of `engine`; `disclosure` says what readers learn of those not ready."""
        self._engine = engine
        self._disclosure = disclosure

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer the page of one version of a model, in whatever state. Reactor thread.

        Raises UnknownModel, or ModelNotReady while models are still looked for.
        """
        name, number_of_version = call.head.model()
        version = self._engine.find(name, number_of_version)
        state = state_text(version, self._disclosure, call.head.request_id)
        not_ready = "" if version.accepts else state
        facts = facts_of(version, self._engine.metrics, self._engine.seconds(), not_ready)
        up = "../../../" if number_of_version else "../"
        # A pipeline has steps, and no batches of its own.
        steps = pipeline_part(self._engine, version, up)
        parts = (
            f"<p>{escape(state)}</p>",
            steps or _words(facts),
            traffic_part(self._engine, version.spec.name),
            "" if steps or not_ready else "".join(_numbers(facts)),
            _links(version, up),
        )
        return page(version.title, "".join(parts), 0 if not_ready else REFRESH_S)


def state_text(version: ModelVersion, disclosure: Disclosure, request_id: bytes | None) -> str:
    """Return what readers learn of the state of `version`. Reactor thread."""
    return disclosure.part(version.status_text, version.public_text, request_id).text


def link_to(engine: Engine, version: ModelVersion) -> str:
    """Return the link to the page of `version`, as seen from `/`. Reactor thread."""
    link = f"models/{quote(version.spec.name, safe='')}"
    if engine.find(version.spec.name) is version:
        return link
    return f"{link}/versions/{quote(version.spec.version, safe='')}"


def _words(facts: Facts) -> str:
    situation, because, change = explain(facts)
    asked = situation not in ("not_ready", "no_traffic")
    advice = paragraphs(change or ["Nothing."]) if asked else ""
    return (
        f"<h2>Why batches are as they are</h2>{paragraphs(because)}"
        f"{'<h2>What to change</h2>' if asked else ''}{advice}"
    )


def _numbers(facts: Facts) -> Iterator[str]:
    if facts.window.batches and facts.window.seconds:
        yield f"<h2>In numbers</h2>{table(('what', 'lately'), _lately(facts))}"
        head = ("reason", "share", "the batch was sent because")
        yield f"<h2>Why batches were sent</h2>{table(head, _reasons(facts))}"
    yield f"<h2>What a batch takes</h2>{_times(facts)}"
    yield f"<h2>Settings and what was learnt</h2>{table(('what', 'value'), _settings(facts))}"


def _lately(facts: Facts) -> list[tuple[str, str]]:
    window = facts.window
    ended = f", until {time_text(window.ended)} ago" if window.ended >= 1 else ""
    return [
        ("time that these numbers are of", f"{time_text(window.seconds)}{ended}"),
        ("batches", f"{window.batches:,}"),
        ("rows of a batch", number(window.rows_per_batch)),
        ("rows a second", number(window.rows / window.seconds)),
        ("requests that the model has at a time", number(window.at_once)),
        ("wait of a request for its batch", time_text(window.queued)),
        ("time of a batch", time_text(window.batch_s)),
        ("the model is busy", percent(window.busy)),
        ("the server's loop is busy", percent(window.loop_busy)),
        ("rows that wait now", f"{facts.waiting:,}"),
        *((f"rows refused: {why}", f"{rows:,}") for why, rows in window.refused.items()),
    ]


def _reasons(facts: Facts) -> list[tuple[str, str, str]]:
    flushes = sorted(facts.window.flushes.items(), key=lambda item: -item[1])
    return [
        (f"<code>{escape(why)}</code>", percent(facts.window.share(why)), REASONS.get(why, ""))
        for why, _ in flushes
    ]


def _times(facts: Facts) -> str:
    if not facts.times:
        return "<p>Nothing is known yet.</p>"
    points = [(rows, seconds * 1e3) for rows, seconds in facts.times]
    picture = chart(points, "rows of a batch", "milliseconds") if len(points) > 1 else ""
    cells = (
        (several(rows, "row"), time_text(seconds), time_text(seconds / rows))
        for rows, seconds in facts.times
    )
    return picture + table(("batch", "takes", "a row of it"), cells)


def _settings(facts: Facts) -> list[tuple[str, str]]:
    wait = f"{time_text(facts.wait)} after a batch" if facts.returning else "none"
    longest = time_text(facts.longest_wait) if facts.longest_wait else "none"
    return [
        ("policy", f"<code>{escape(facts.policy)}</code>"),
        ("max_batch_size", str(facts.max_batch_size)),
        ("rows that a batch may have", str(facts.ceiling_rows)),
        ("max_delay_ms", number(facts.max_delay * 1e3)),
        ("learned wait for clients that return", wait),
        ("longest such wait", longest),
        ("instances that take batches", f"{facts.alive} of {facts.instances}"),
        ("shapes of rows so far", str(facts.shapes or 1)),
    ]


def _links(version: ModelVersion, up: str) -> str:
    name, number_of_version = (quote(part, safe="") for part in version.key)
    path = f"v2/models/{name}/versions/{number_of_version}/batching"
    return f'<p><a href="{up}">models</a> · <a href="{up}{path}">as JSON</a></p>'
