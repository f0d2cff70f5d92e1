"""Divides the requests of a model between its stable version and a canary, as its trial says.

| the trial | answers |
|---|---|
| there is none, since only one version is there | that version |
| is running | the canary by its share, the stable version the rest |
| is running, and the stable version was removed | the canary, which is not rolled back then |
| was promoted | the canary; the stable version where the canary cannot |
| was rolled back | the stable version |
| has left no version that is still there | the newest version that was not rolled back |

The stable version is the one that the last trial left, if it is still there, else the one with the
label `stable`, else the newest besides the canary. The version that was tried last is not tried
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from batcher.config.model_settings import ModelSettings
from batcher.config.traffic import LATEST, Canary
from batcher.errors import InvalidInput, ModelNotReady
from batcher.serving.canaries.arms import Arm
from batcher.serving.canaries.metrics import CanaryMetrics
from batcher.serving.canaries.records import Record
from batcher.serving.canaries.trial import Decision, Outcome, Trial, arms_of, restored, status_of
from batcher.serving.divisions import first_of, none_ready
from batcher.serving.model_version import GONE, ModelState, ModelVersion
from batcher.serving.named_model import alike
from batcher.serving.stages import split
from batcher.serving.variant_metrics import VariantMetrics, outcome_of

_log = Logger()

SAVE_EVERY_S = 10.0
"""Seconds after which the numbers of a running trial are written again. A server that is killed
loses the answers of so long.
"""

Save = Callable[[str, Record], Deferred[None]]
"""Keeps the record of a model's trial; fires when that is done, or has failed."""


class Records(NamedTuple):
    """Where the states of trials are.

    Attributes:
        known: the record of each model, by its name.
        save: keeps a record beyond the life of the server.
    """

    known: dict[str, Record]
    save: Save


class CanaryDivision:
    """The trials of one model, one after the other. Reactor thread.

    Attributes:
        trial: the one that runs, or the last; None before the first.

    Args:
        name: of the model.
        settings: of the model; they say which versions are tried, and how.
        versions: returns all versions of the model, in whatever state.
        records: has the states of trials, and keeps them.
        metrics: where answers and decisions are counted.
        seconds: the clock.
        random: divides requests without a route.
        changed: called when other versions answer than before.
    """

    _answering: Sequence[str] = ()
    _is_alone = False
    """Whether a version on trial answers all, since the one that it is tried against is gone."""

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        versions: Callable[[], list[ModelVersion]],
        records: Records,
        metrics: tuple[VariantMetrics, CanaryMetrics],
        seconds: Callable[[], float],
        random: Random,
        changed: Callable[[], None],
    ) -> None:
        """Go on with the trial in `records`, if there is one."""
        assert settings.canary is not None
        self.division: split.Division | None = self
        self._settings, self._canary = settings, settings.canary
        self._name, self._records, self._all_versions = name, records, versions
        self._variants, self._metrics = metrics
        self._seconds, self._saved = seconds, seconds()
        self._random, self._changed = random, changed
        self.trial = _trial_of(records.known.get(name), self._canary, seconds())
        # What versions have answered, in trials and without: the past of the next stable one.
        self._arms = arms_of(self.trial)
        if self.trial is not None:
            self._metrics.trials[name] = self.trial
        self._split = self._new_split()

    def versions(self) -> list[str]:
        """Return the numbers of the versions that may answer, the most important first."""
        self._look()
        trial, answering = self.trial, self._order()
        self._answering = answering
        self._is_alone = (
            trial is not None
            and trial.outcome is Outcome.RUNNING
            and self._version(trial.stable) is None
        )
        return answering

    def _order(self) -> list[str]:
        trial = self.trial
        if trial is None or not _left_by(trial, self._all_versions()):
            is_fixed = self._canary.version != LATEST
            tried = self._settings.number_of(self._canary.version) if is_fixed else ""
            others = [each for each in self._ready() if each not in (tried, _refused_by(trial))]
            return others or ([] if trial is None else [trial.stable])
        if trial.outcome is Outcome.ROLLED_BACK:
            return [trial.stable]
        if trial.outcome is Outcome.PROMOTED:
            return list(dict.fromkeys((trial.candidate, trial.stable)))
        return [trial.stable, trial.candidate]

    def pick(self, route: str, fitting: Mapping[str, Any]) -> str:
        """Return the number of the version that gets a request; `Division` says more."""
        trial = self.trial
        if trial is None or trial.outcome is not Outcome.RUNNING:
            return first_of(self._answering, fitting, self._name)
        if trial.candidate in fitting and self._split.side(route) == "canary":
            return trial.candidate
        if trial.stable in fitting:
            return trial.stable
        if trial.candidate in fitting and self._version(trial.stable) is None:
            return trial.candidate  # nobody brings the other one back
        raise none_ready(self._name, [trial.stable])

    def heard(self, version: str, seconds: float, error: BaseException | None) -> None:
        """Count an answer, and go forward or back if that follows from it. Reactor thread."""
        self._variants.of(self._name, version).count(seconds, error)
        outcome, trial, now = outcome_of(error), self.trial, self._seconds()
        if outcome not in ("ok", "failed"):
            return
        arm = self._arms.setdefault(version, Arm())
        arm.add(outcome == "failed")
        arm.fade()
        if trial is None or self._is_alone:  # a version that is gone can take nothing back
            return
        self._follow(trial.heard(version, seconds, outcome == "failed", now))
        if trial.outcome is Outcome.RUNNING and now - self._saved >= SAVE_EVERY_S:
            self.keep()

    def _look(self) -> None:
        """Begin a trial if there is a version to try, and end one whose version has broken."""
        trial, candidate = self.trial, self._candidate()
        if trial is not None and trial.outcome is Outcome.RUNNING:
            tried = self._version(trial.candidate)
            if tried is not None and tried.state is ModelState.BROKEN:
                self._follow(trial.roll_back(f"no worker of version {trial.candidate} is alive"))
        if candidate is None or (trial is not None and candidate == trial.candidate):
            return
        stable = self._stable(candidate)
        if stable == candidate:
            if not _left_by(trial, self._all_versions()):
                self._settle(candidate)
        elif stable is not None:
            self._begin(candidate, stable)

    def _candidate(self) -> str | None:
        """Return the number of the version to try, None while it cannot answer."""
        ready = self._ready()
        wanted = self._canary.version
        if wanted == LATEST:
            return ready[0] if ready else None
        number = self._settings.number_of(wanted)
        return number if number in ready else None

    def _stable(self, candidate: str) -> str | None:
        """Return the version that `candidate` is compared with; None while it is not known.

        It is `candidate` itself where nothing else is there.
        """
        if left := _left_by(self.trial, self._all_versions()):
            return left
        ready, refused = self._ready(), _refused_by(self.trial)
        label = self._settings.labels.get("stable")
        if label is not None:
            return str(label) if str(label) in ready else None
        if rest := [number for number in ready if number not in (candidate, refused)]:
            return rest[0]
        # A version that still loads is the stable one as soon as it has loaded.
        hidden = self._settings.shadowed if self._canary.version == LATEST else ""
        others = {each.spec.version for each in self._all_versions() if each.state not in GONE}
        return candidate if others <= {candidate, refused, hidden} else None

    def _ready(self) -> list[str]:
        """Return the numbers of the versions that can answer: the newest first, the shadow last.

        Where the newest is tried, the shadow is none of them: no client sees its answers.
        """
        ready = [each.spec.version for each in self._all_versions() if each.accepts]
        if self._canary.version == LATEST:
            ready = [number for number in ready if number != self._settings.shadowed]
        return sorted(ready, key=lambda each: (each == self._settings.shadowed, -int(each)))

    def _version(self, number: str) -> ModelVersion | None:
        found = (each for each in self._all_versions() if each.spec.version == number)
        return next(found, None)

    def _settle(self, version: str) -> None:
        """Take `version`, the only one, for the one that the next is compared with."""
        self.trial = Trial(self._canary, version, version, self._seconds())
        self.trial.promote("it was the only version")
        self._metrics.trials[self._name] = self.trial
        self.keep()

    def _begin(self, candidate: str, stable: str) -> None:
        past = self._arms.get(stable, Arm())
        self._arms = {stable: past}
        self.trial = Trial(self._canary, candidate, stable, self._seconds(), past + Arm())
        self._metrics.trials[self._name] = self.trial
        self._follow(Decision("started", f"version {candidate} is tried against {stable}"))

    def _follow(self, decision: Decision | None) -> None:
        """Do what was decided: divide anew, and tell."""
        if decision is None or self.trial is None:
            return
        self._split, self._answering = self._new_split(), self._order()
        self._metrics.decided(self._name, decision.what)
        tell = _log.warn if decision.what == "rolled_back" else _log.info
        tell(
            "canary {name}/{version}: {what}, gets {percent:g} % of the requests: {reason}",
            name=self._name,
            version=self.trial.candidate,
            what=decision.what.replace("_", " "),
            percent=100.0 * self.trial.share,
            reason=decision.reason,
        )
        self.keep()
        self._changed()

    def _new_split(self) -> split.Split:
        share = self.trial.share if self.trial is not None else 0.0
        return split.Split(self._name, {"stable": 1.0 - share, "canary": share}, self._random)

    def keep(self) -> Deferred[None]:
        """Keep the state of the trial as it is now; fires when it is kept. Reactor thread."""
        if self.trial is None:
            return succeed(None)
        self._saved = self._seconds()
        record = self.trial.record(self._saved)
        self._records.known[self._name] = record
        return self._records.save(self._name, record)

    def promote(self) -> None:
        """Send all requests to the canary, since a person wants it.

        Raises InvalidInput: there is none; ModelNotReady: it cannot answer.
        """
        trial = self._tried()
        _check_ready(self._version(trial.candidate), trial.candidate)
        self._follow(trial.promote("a person asked for it"))

    def abort(self) -> None:
        """Send no request to the canary, since a person wants it; raises as `promote` does."""
        trial = self._tried()
        _check_ready(self._version(trial.stable), trial.stable)
        self._follow(trial.roll_back("a person asked for it"))

    def _tried(self) -> Trial:
        self._look()
        if self.trial is None or self.trial.candidate == self.trial.stable:
            raise InvalidInput(
                f"model {self._name!r}: expected a version on trial; there is none, since no "
                "version has come besides the one that answers"
            )
        return self.trial

    def status(self) -> dict[str, Any]:
        """Return where the trial is, with its figures, as a value that JSON can hold."""
        self._look()
        trial, now = self.trial, self._seconds()
        if trial is None:
            return {"model": self._name, "outcome": "waiting"}
        self._follow(trial.tick(now))
        return {"model": self._name, **status_of(trial, now), "note": self._note()}

    def _note(self) -> str:
        """Return why a trial that runs divides nothing now; empty if it does."""
        trial = self.trial
        if trial is None or trial.outcome is not Outcome.RUNNING:
            return ""
        found, stable = self._version(trial.candidate), self._version(trial.stable)
        if found is None or not found.accepts:
            why = f"version {trial.candidate} cannot answer now"
        elif stable is None:
            return f"version {trial.stable} was removed: version {trial.candidate} answers all"
        elif alike(found, stable):
            return ""
        else:
            why = f"version {trial.candidate} has other inputs or outputs"
        return f"{why}: version {trial.stable} answers all"


def _left_by(trial: Trial | None, versions: list[ModelVersion]) -> str:
    """Return the version that answers after `trial`, or beside it; empty if it is not there."""
    if trial is None:
        return ""
    wanted = {
        Outcome.RUNNING: (trial.stable, trial.candidate),
        Outcome.PROMOTED: (trial.candidate, trial.stable),
        Outcome.ROLLED_BACK: (trial.stable,),
    }[trial.outcome]
    there = {each.spec.version for each in versions if each.state not in GONE}
    return next((number for number in wanted if number in there), "")


def _refused_by(trial: Trial | None) -> str:
    """Return the version that `trial` has rolled back; empty without one."""
    is_over = trial is not None and trial.outcome is Outcome.ROLLED_BACK
    return trial.candidate if trial is not None and is_over else ""


def _check_ready(version: ModelVersion | None, number: str) -> None:
    """Check that `version`, which has the `number`, can answer; raises ModelNotReady."""
    if version is None or not version.accepts:
        raise ModelNotReady(f"version {number} cannot answer now", retry_after=5)


def _trial_of(record: Record | None, settings: Canary, now: float) -> Trial | None:
    """Return the trial whose state `record` holds; None without one, or if it holds none."""
    if record is None:
        return None
    try:
        return restored(settings, record, now)
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        _log.warn("a trial begins anew, since its state cannot be read: {err!r}", err=err)
        return None
