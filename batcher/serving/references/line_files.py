"""Files that the lines of a job name in place of inputs, fetched while the lines are read.

What a request may name, a line may: the prefixes, the checks of addresses and the bounds are the
same. A line has no client who waits, so what differs is the patience:

| what happens | what follows |
|---|---|
| the source does not answer | the file is asked for again, for `FILE_S`; then its line has failed |
| the file is missing, too large, or not allowed | its line has failed |
| the job is stopped | all fail that are not here yet: a stopped job drops what is being read |

Nothing is kept: a job hardly names a file twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import Final

from batcher.core.error_text import brief
from batcher.core.references import BUCKETS, Reference
from batcher.errors import BatcherError, ClientError, InputSourceFailed, InvalidInput
from batcher.serving.references.fetcher import MAX_FILES, FetchRules, OpenSource, open_source
from batcher.serving.references.source import Fetch, GivenUp, Source, failed

FILE_S: Final = 60.0
"""Seconds for one file, all attempts together."""

AGAIN_S: Final = (1.0, 4.0)
"""Seconds before the second attempt, and before the third."""


class _Contents(Mapping[str, bytes]):
    """Files by address; to look up one that could not be fetched raises why."""

    def __init__(self) -> None:
        self.found: dict[str, bytes | BatcherError] = {}

    def __getitem__(self, address: str) -> bytes:
        found = self.found[address]
        if isinstance(found, BatcherError):
            raise found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


class LineFiles:
    """Fetches the files of the lines of one job. Any thread, several at a time."""

    _is_given_up = False

    def __init__(
        self,
        rules: Callable[[], FetchRules],
        open_source: OpenSource = open_source,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Fetch what `rules` allow at the moment; `sleep` waits for so many seconds."""
        self._rules = rules
        self._open_source = open_source
        self._seconds, self._sleep = seconds, sleep
        self._sources: tuple[FetchRules | None, dict[tuple[str, str], Source]] = (None, {})

    @property
    def is_on(self) -> bool:
        """Whether lines may name files."""
        return self._rules().is_on

    def give_up(self) -> None:
        """Fetch nothing more: the job is stopped. A fetch ends at its next look at the time."""
        self._is_given_up = True

    def _now(self) -> float:
        """Return the seconds; nothing has time any more once the job is stopped."""
        return inf if self._is_given_up else self._seconds()

    def fetch(self, addresses: Sequence[str]) -> Mapping[str, bytes]:
        """Return the files of one line by their addresses, one after the other.

        Raises InvalidInput or TooLarge: there are too many, or too many bytes. What is wrong with
        one file is raised where that is looked up.
        """
        rules = self._rules()
        wanted = dict.fromkeys(addresses)
        if len(wanted) > MAX_FILES:
            raise InvalidInput(f"ref: expected at most {MAX_FILES} files in one line; got more")
        contents, nbytes = _Contents(), 0
        for address in wanted:
            try:
                content = self._one(rules, address)
            except (ClientError, InputSourceFailed) as err:
                contents.found[address] = err
                continue
            contents.found[address] = content
            nbytes += len(content)
            rules.check_together(nbytes)
        return contents

    def _one(self, rules: FetchRules, address: str) -> bytes:
        """Return a file. Raises ClientError, InputSourceFailed."""
        try:
            reference = rules.sources.find(address)[0]
        except InvalidInput as err:
            raise InvalidInput(f"ref: {err}") from None
        fetch = Fetch(rules.max_bytes, self._seconds() + FILE_S, self._now)
        try:
            fetch.left()
            for wait in AGAIN_S:
                try:
                    return self._read(rules, reference, fetch)
                except InputSourceFailed:
                    self._sleep(min(wait, fetch.left()))
            return self._read(rules, reference, fetch)
        except GivenUp:
            raise failed(address, f"a file within {FILE_S:g} seconds; got none") from None

    def _read(self, rules: FetchRules, reference: Reference, fetch: Fetch) -> bytes:
        is_web = reference.scheme not in BUCKETS
        of = ("web", "") if is_web else (reference.scheme, reference.host)
        known, sources = self._sources
        if (
            known is not rules
        ):  # the settings have changed: a redirection is checked by the new ones
            sources = {}
            self._sources = rules, sources
        source = sources.get(of)
        if source is None:  # two threads may make two, of which one stays
            source = sources[of] = self._open_source(reference, rules.sources)
        found = source.read(reference.address if is_web else reference.name, "", fetch)
        assert found is not None, f"{brief(reference.address)}: nothing is kept that it could equal"
        return found.content
