"""Reloads, promotes and aborts of a server that runs, and which versions were meant meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from urllib.request import Request, urlopen

from benchmarks.serving import Running
from benchmarks.trials.clients import Answered
from benchmarks.trials.repository import WEIGHTS_BYTES, remove_version, write_version

CHANGE_LIMIT_S = 60.0
"""Seconds that a change may take before it counts as hung."""

LOOK_S = 0.01
"""Seconds between two looks at the server's log."""


class Meant:
    """From when until when each version was meant to answer requests that name none."""

    def __init__(self, number: int) -> None:
        """Begin with the version that answers `number`."""
        self._began = {number: 0.0}
        self._ended: dict[int, float] = {}

    def begin(self, number: int) -> None:
        """From now on the version may answer: it is about to be asked for."""
        self._began[number] = time.monotonic()

    def end(self, number: int) -> None:
        """From now on the version may not answer: the server has said that it is gone."""
        self._ended[number] = time.monotonic()

    def is_right(self, one: Answered) -> bool:
        """Return whether the version that answered was meant at some time of the request."""
        began, ended = self._began.get(one.number), self._ended.get(one.number, float("inf"))
        return began is not None and began <= one.at and one.sent <= ended

    def wrong(self, answered: Iterable[Answered]) -> int:
        """Return how many answers came from a version that was not meant."""
        return sum(one.status == 200 and not self.is_right(one) for one in answered)


class Changes:
    """Changes the models `replaced` and `tried` of a server, again and again.

    Attributes:
        made: changes by kind.
        seconds: that each change took, by kind: from the signal until the server has said so.
        replaced: which versions of `replaced` were meant.
        tried: which versions of `tried` were meant.
    """

    def __init__(self, server: Running, repository: Path, log: Path) -> None:
        """Change files in `repository`, and see in `log` what `server` did."""
        self.seconds: dict[str, list[float]] = {"reload": [], "promote": [], "abort": []}
        self.replaced, self.tried = Meant(1), Meant(1)
        self._server = server
        self._repository = repository
        self._log = log
        self._content = 1
        self._stable, self._newest = 1, 1

    @staticmethod
    def write(repository: Path) -> None:
        """Write what there is before the first change."""
        for model in ("replaced", "tried"):
            write_version(repository, model, 1, 1, weights=WEIGHTS_BYTES)

    def change(self) -> None:
        """Make a change of the kind that was made least often."""
        kinds = {"reload": self.reload, "promote": self.promote, "abort": self.abort}
        kinds[min(kinds, key=lambda kind: len(self.seconds[kind]))]()

    def only_write(self) -> None:
        """Write what a change writes, where no server looks: what is left is the server's cost."""
        spare = self._repository.with_name("spare")
        write_version(spare, "written", 1, self._content, weights=WEIGHTS_BYTES)
        remove_version(spare, "written", 1)

    def reload(self) -> None:
        """Give version 1 of `replaced` another content."""
        self._content += 1
        write_version(self._repository, "replaced", 1, self._content, weights=WEIGHTS_BYTES)
        with self._timed("reload"):
            self.replaced.begin(self._content)
            self._reload()
            self.replaced.end(self._content - 1)

    def promote(self) -> None:
        """Bring a new version of `tried`, and have it answer all requests."""
        with self._timed("promote"):
            self._try_version()
            self._ask("/promote")
            self.tried.end(self._stable)
        remove_version(self._repository, "tried", self._stable)
        self._stable = self._newest

    def abort(self) -> None:
        """Bring a new version of `tried`, and have it answer none."""
        with self._timed("abort"):
            self._try_version()
            self._ask("/abort")
            self.tried.end(self._newest)
        remove_version(self._repository, "tried", self._newest)

    def _try_version(self) -> None:
        self._newest += 1
        write_version(self._repository, "tried", self._newest, self._newest, weights=WEIGHTS_BYTES)
        self.tried.begin(self._newest)
        self._reload()
        status = self._ask()
        found = status["outcome"], status["candidate"], status["stable"]
        if found != ("running", str(self._newest), str(self._stable)):
            raise RuntimeError(f"expected version {self._newest} on trial; got {status}")

    def _reload(self) -> None:
        with self._log.open() as log:
            log.seek(0, os.SEEK_END)
            os.kill(self._server.pid, signal.SIGHUP)
            self._wait(log)

    def _wait(self, log: TextIO) -> None:
        """Wait until `log` says that the server was reloaded."""
        text, deadline = "", time.monotonic() + CHANGE_LIMIT_S
        while " reloaded: " not in text:
            if "not reloaded" in text:
                raise RuntimeError(text[text.index("not reloaded") :][:2000])
            if time.monotonic() > deadline:
                raise RuntimeError(f"a reload took longer than {CHANGE_LIMIT_S:g} s")
            time.sleep(LOOK_S)
            text += log.read()

    def _ask(self, what: str = "") -> dict[str, Any]:
        url = f"{self._server.http}/models/tried/rollout{what}"
        with urlopen(Request(url, method="POST" if what else "GET"), timeout=30) as answer:
            status: dict[str, Any] = json.load(answer)
            return status

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[kind].append(time.monotonic() - began)
