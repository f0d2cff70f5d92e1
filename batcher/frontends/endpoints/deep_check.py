"""Whether models do answer: a real inference of one blank row through each that should serve.

It goes the way of every request (hooks, queue, worker), so it finds what the states of models do
not tell: a model that hangs, a device that is lost. Whoever asks while a check runs is told what
that one finds, so a flood of questions is never more than one row a model at a time.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from batcher.core.request import InferenceResponse, Parameters
from batcher.frontends.endpoints.failures import told
from batcher.models.warmup import blank_rows, unsized_inputs
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.server import ModelServer

LONGEST = 5.0
"""Seconds that a model has, or its own default deadline if that is less: what platforms that ask
every 10 s still wait for.
"""


class Outcome:
    """What a check found, by the titles of models.

    Attributes:
        seconds: how long those took that answered.
        failed: why others did not.
        skipped: why others were not asked.
    """

    def __init__(self) -> None:
        """Start with nothing found."""
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}


class DeepCheck:
    """Checks the models of a server that are ready and required, one check at a time.

    Reactor thread.
    """

    def __init__(self, server: ModelServer, expose_model_errors: bool) -> None:
        """Check `server`; `expose_model_errors` says whether class and message of a model's own exception are told."""
        self._server = server
        self._expose = expose_model_errors
        self._asked: list[Deferred[Outcome]] = []

    def run(self) -> Deferred[Outcome]:
        """Fire with what the check finds that runs, or begins, now.

        Cancelling it stops no check.
        """
        asked: Deferred[Outcome] = Deferred()
        self._asked.append(asked)
        if len(self._asked) == 1:
            outcome = Outcome()
            models = [
                served
                for served in self._server
                if served.required and served.state is ModelState.READY
            ]
            DeferredList([self._ask(served, outcome) for served in models]).addCallback(
                lambda _: self._tell(outcome)
            )
        return asked

    def _tell(self, outcome: Outcome) -> None:
        asked, self._asked = self._asked, []
        for deferred in asked:
            deferred.callback(outcome)

    def _ask(self, served: ModelVersion, outcome: Outcome) -> Deferred[None]:
        """Fire when it stands in `outcome` what `served` did with its row.

        At the highest priority, and charged to no quota.
        """
        server, spec, title = self._server, served.spec, served.title
        began = server.seconds()

        def answered(_: InferenceResponse) -> None:
            outcome.seconds[title] = server.seconds() - began

        def failed(failure: Failure) -> None:
            assert failure.value is not None
            _, code, text, _ = told(failure.value, self._expose)
            outcome.failed[title] = f"{code}: {text}"

        if reason := unsized_inputs(spec):
            outcome.skipped[title] = reason
            return succeed(None)
        parameters = Parameters(
            server.deadline(served, min(served.settings.timeout, LONGEST)), priority=1, key=None
        )
        return server.infer(spec.name, blank_rows(spec, 1), spec.version, parameters).addCallbacks(
            answered, failed
        )
