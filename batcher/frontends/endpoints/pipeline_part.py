"""The part of a model's page that a pipeline has: its steps, and what became of their rows."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from batcher.config.pipelines.plan import Step
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.markup import table
from batcher.serving.model_version import ModelVersion
from batcher.serving.monitoring.wording import time_text

_HEAD = (
    "step",
    "what it does",
    "which rows",
    "rows run",
    "skipped",
    "dropped",
    "a request takes",
)


def pipeline_part(engine: Engine, version: ModelVersion, up: str) -> str:
    """Return the steps of `version` as a table; empty if it is no pipeline. Reactor thread.

    `up` leads from the page to `/`.
    """
    plan = version.definition.plan
    if plan is None:
        return ""
    counts = engine.metrics.pipelines.of(*version.key)
    rows = []
    for step in plan.steps:
        each = counts.of(step.name)
        mean = each.seconds.total / each.seconds.count if each.seconds.count else None
        rows.append(
            (
                escape(step.name),
                _what(step, up),
                f"<code>{escape(step.condition.text)}</code>" if step.condition else "all",
                *(f"{number:,}" for number in (each.run, each.skipped, each.dropped)),
                time_text(mean) if mean is not None else "",
            )
        )
    return f"<h2>Steps</h2>{table(_HEAD, rows)}"


def _what(step: Step, up: str) -> str:
    if step.model:
        link = f"{up}models/{quote(step.model, safe='')}"
        version = f" version {escape(step.version)}" if step.version else ""
        return f'model <a href="{link}">{escape(step.model)}</a>{version}'
    return f"<code>{escape(step.use or step.entry)}</code>"
