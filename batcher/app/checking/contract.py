"""The contract between a model and the server, rule by rule, and what was found when a model was held against it.

A rule says why the server needs it and how a breach is mended; a finding adds where it was seen,
what was expected and what came. Whether something is a breach, a warning or a note belongs to the
rule: a breach fails requests or answers them wrongly, a warning may be meant, a note only tells.
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
        level: what breaking it means.
        why: why the server needs it; may be empty.
        mend: how a model is mended that breaks it; may be empty.
    """

    level: Level
    why: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach, warning or note.

    Attributes:
        rule: the rule that it is about.
        where: the part of the model and the batch sizes.
        message: what was expected and what came.
    """

    rule: Rule
    where: str
    message: str

    @property
    def level(self) -> Level:
        """What it means."""
        return self.rule.level


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a batch took.

    Attributes:
        rows: its rows.
        seconds: of `predict` alone.
    """

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found of one version of a model.

    Attributes:
        title: name and version, as `digits/1`.
        rows: in words, what it was run on; empty if it was not run.
        findings: breaches first, then warnings, then notes.
        timings: of the batch sizes that ran, ascending.
    """

    title: str
    rows: str
    findings: tuple[Finding, ...]
    timings: tuple[Timing, ...] = ()

    def count(self, level: Level) -> int:
        """Return how many findings are of that level."""
        return sum(finding.level == level for finding in self.findings)


class Findings:
    """Collects what is found.

    What is seen again at another batch size is told once, with all the sizes.
    """

    def __init__(self) -> None:
        """Start without any."""
        self._seen: dict[tuple[Rule, str], tuple[str, list[int]]] = {}

    def add(self, rule: Rule, subject: str, message: str, size: int = 0) -> None:
        """Note that `subject` is a case of `rule`, at a batch size of `size` if it has one.

        The first message is kept.
        """
        _, sizes = self._seen.setdefault((rule, subject), (message, []))
        if size and size not in sizes:
            sizes.append(size)

    def has(self, *rules: Rule) -> bool:
        """Whether one of `rules`, or, without any, some rule of level breach has been broken."""
        return any(rule in rules if rules else rule.level == "breach" for rule, _ in self._seen)

    def all(self) -> tuple[Finding, ...]:
        """Return them, breaches first."""
        found = [
            Finding(rule, _where(subject, sorted(sizes)), message)
            for (rule, subject), (message, sizes) in self._seen.items()
        ]
        return tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def _where(subject: str, sizes: list[int]) -> str:
    if not sizes:
        return subject
    return f"{subject}, batch size{'s' * (len(sizes) > 1)} {', '.join(map(str, sizes))}"
