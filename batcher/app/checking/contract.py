"""Rules, findings and reports: the values that a check is made of.

A rule says what the server needs of a model, why, and how a breach is mended. A finding says where
a rule was broken, what was expected and what the model did. A report holds all findings of one
version of a model. How bad a finding is belongs to its rule:

    level     means
    breach    requests fail, or get wrong answers
    warning   requests may get wrong answers; the author of the model may have meant it so
    note      answers are right; the author may want to know
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["breach", "warning", "note"]
LEVELS: tuple[Level, ...] = ("breach", "warning", "note")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the contract.

    Attributes:
        level: how bad a breach of the rule is.
        why: why the server needs the rule; may be empty.
        mend: how a model that breaks the rule is mended; may be empty.
    """

    level: Level
    why: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach, warning or note.

    Attributes:
        rule: the rule that was broken.
        where: the part of the model, and the batch sizes in rows.
        message: what was expected and what the model did.
    """

    rule: Rule
    where: str
    message: str

    @property
    def level(self) -> Level:
        """How bad the finding is: the level of its rule."""
        return self.rule.level


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a batch took.

    Attributes:
        rows: the rows of the batch.
        seconds: the time in `predict` alone.
    """

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a check found out about one version of a model.

    Attributes:
        title: name and version, as `digits/1`.
        rows: in words, which rows the model ran on; empty if the model did not run.
        findings: breaches first, then warnings, then notes.
        timings: one for each batch size that ran, ascending.
    """

    title: str
    rows: str
    findings: tuple[Finding, ...]
    timings: tuple[Timing, ...] = ()

    def count(self, level: Level) -> int:
        """Return how many findings are of `level`."""
        return sum(finding.level == level for finding in self.findings)


class Findings:
    """Collects findings while a model is checked.

    A rule that the same part of a model breaks at several batch sizes makes one finding. That
    finding names all the sizes. Of a rule that says nothing itself each message is a finding.
    """

    def __init__(self) -> None:
        """Start without findings."""
        self._seen: dict[tuple[Rule, str, str], tuple[str, list[int]]] = {}

    def add(self, rule: Rule, subject: str, message: str, size: int = 0) -> None:
        """Note that `subject` breaks `rule`.

        Args:
            rule: the rule that is broken.
            subject: the part of the model, in words.
            message: what was expected and what the model did. Of several messages about one
                subject and rule the first is kept.
            size: the rows of the batch; 0 if the breach belongs to no batch.
        """
        told = "" if rule.why else message
        _, sizes = self._seen.setdefault((rule, subject, told), (message, []))
        if size and size not in sizes:
            sizes.append(size)

    def replace(self, rule: Rule, other: Rule) -> None:
        """Have whatever breaks `rule` break the rule `other` instead."""
        self._seen = {
            (other if each is rule else each, subject, told): value
            for (each, subject, told), value in self._seen.items()
        }

    def has(self, *rules: Rule) -> bool:
        """Return whether one of `rules` was broken; without `rules`, whether a breach was found."""
        return any(rule in rules if rules else rule.level == "breach" for rule, *_ in self._seen)

    def all(self) -> tuple[Finding, ...]:
        """Return the findings: breaches, then warnings, then notes."""
        findings = [
            Finding(rule, _where(subject, sorted(sizes)), message)
            for (rule, subject, _), (message, sizes) in self._seen.items()
        ]
        return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


def _where(subject: str, sizes: list[int]) -> str:
    if not sizes:
        return subject
    return f"{subject}, batch size{'s' * (len(sizes) > 1)} {', '.join(map(str, sizes))}"
