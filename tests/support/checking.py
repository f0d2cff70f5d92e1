"""Small models for `batcher check --model`, and what a check finds in them."""

from __future__ import annotations

from typing import Any

from batcher.app.checking.check import check_version
from batcher.app.checking.contract import Finding, Report, Rule
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings


def predicting(body: str, hooks: str = "") -> str:
    """Return the source of a model whose `predict` is `body`, with the input as `x`.

    `hooks` are more methods of the model.
    """
    return (
        f'STATE = {{}}\n\nclass Model:\n    def predict(self, inputs):\n        x = inputs["x"]\n  '
        f"      {body}\n{hooks}"
    )


def hook(name: str, body: str) -> str:
    """Return the source of the method `name` of a model, which takes `values`."""
    return f"\n    def {name}(self, values):\n        {body}\n"


def check(definition: ModelDefinition, **settings: Any) -> Report:
    """Check a model on the CPU, with batches of up to 8 rows, by a clock that stands still."""
    wanted = ModelSettings(**{"device": "cpu", "max_batch_size": 8, **settings})
    return check_version(
        definition.spec.name,
        definition.spec.version,
        definition.folder,
        wanted,
        seconds=lambda: 0.0,
    )


def of(report: Report, rule: Rule) -> Finding:
    """Return the one finding about `rule`."""
    (found,) = [finding for finding in report.findings if finding.rule is rule]
    return found


def messages(report: Report) -> list[str]:
    """Return the findings of `report` but for notes, each as its place and its message."""
    return [
        f"{finding.where}: {finding.message}"
        for finding in report.findings
        if finding.level != "note"
    ]
