"""Fetches one version of a model out of a store: small files first, then all others in parts.

`model.yaml` and `SHA256SUMS` come first. Where one of them names a file that the listing lacks, the
upload has not ended, and nothing else is fetched. At the end the content is compared with
`SHA256SUMS`, or with the store's own checksums. A damaged file is named, and is fetched anew the
next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from batcher.config.model_files import files_named_in
from batcher.config.triton.model_config import CONFIG, read_config
from batcher.core.error_text import brief
from batcher.errors import ConfigError
from batcher.serving.repository.left_out import DEFINITION
from batcher.serving.repository.stores.checksums import SUMS, damaged, read_sums
from batcher.serving.repository.stores.parts import MIB, Part, PartialFile
from batcher.serving.repository.stores.store import FileChanged, Store, StoredFile
from batcher.serving.repository.stores.versions import StoredVersion
from batcher.workers.parallel import in_parallel

PARTS_AT_ONCE = 8
"""Parts that are fetched at once: a store gives each connection some 50 MB/s."""

TRIES = 5
"""Times that a part is asked for."""

FIRST_PAUSE_S = 0.5
"""Seconds before a part is asked for again; each further pause is twice as long."""

MAX_NOTES_BYTES = 4 * MIB
"""Bytes of a `model.yaml` or `SHA256SUMS`: more is none."""


class Incomplete(ConfigError):
    """A version whose upload has not ended."""


class Download:
    """One version on its way to the disk. The thread of the stores.

    Attributes:
        nbytes: bytes that were fetched, not counting those that were there before.
    """

    def __init__(
        self,
        store: Store,
        version: StoredVersion,
        tell: Callable[[str], None],
        stopped: Callable[[], bool] = lambda: False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Fetch `version` from `store`.

        `tell` hears in words how far it is; once `stopped` returns True nothing more is fetched;
        `pause` waits for some seconds.
        """
        self.nbytes = 0
        self._store = store
        self._version = version
        self._tell = tell
        self._stopped = stopped
        self._pause = pause
        self._there = 0
        self._told = -1

    def run(self, folder: Path, notes: Path) -> None:
        """Fetch what is missing in `folder`; `notes` is the folder of notes of what is there.

        Raises:
            Incomplete: the upload has not ended.
            ConfigError: the content is not what it should be; the message names the file.
            OSError: the store or the disk fails.
        """
        files = self._version.files
        first = self._first()
        partials = {
            each: PartialFile(folder / each.name, notes / str(number), each.size)
            for number, each in enumerate(files)
        }
        self._fetch({file: partials[file] for file in first})
        sums = self._check_whole(folder)
        self._fetch({file: partials[file] for file in files if file not in first})
        self._tell("checking what was fetched")
        wrong = damaged(folder, files, sums)
        for file in (file for file in files if file.name in wrong):
            partials[file].forget()
        if wrong:
            raise _damage(wrong, is_alone=len(files) == 1)

    def _fetch(self, partials: dict[StoredFile, PartialFile]) -> None:
        tasks = []
        for file, partial_file in partials.items():
            if not file.tag:  # nobody knows whether what is there is of the same content
                partial_file.forget()
            missing = partial_file.open()
            self._there += file.size - sum(part.end - part.start for part in missing)
            tasks += [partial(self._fetch_part, file, partial_file, part) for part in missing]
        in_parallel(min(PARTS_AT_ONCE, len(tasks)), tasks, self._count, "store")

    def _fetch_part(self, file: StoredFile, partial_file: PartialFile, part: Part) -> int:
        """Fetch one part, and return its bytes. One of the threads that fetch."""
        content = self._content(file, part)
        partial_file.write(part, content)
        return len(content)

    def _count(self, nbytes: int) -> None:
        """Count bytes that have come; tell each tenth of all bytes once."""
        self.nbytes += nbytes
        self._there += nbytes
        whole = self._version.nbytes
        tenth = 10 * self._there // max(whole, 1)
        if tenth > self._told:
            self._told = tenth
            self._tell(f"fetching, {self._there / MIB:,.1f} of {whole / MIB:,.1f} MiB")

    def _content(self, file: StoredFile, part: Part) -> bytes:
        """Return the bytes of a part, asked for several times if need be. Raises OSError."""
        wanted = self._version.in_store(file)
        for tries in range(1, TRIES + 1):
            if self._stopped():
                raise OSError("the server is being stopped")
            try:
                content = self._store.fetch(wanted, part.start, part.end)
                if len(content) == part.end - part.start:
                    return content
                raise OSError(
                    f"{file.name}: expected {part.end - part.start} bytes from byte {part.start} "
                    f"on; the store sent {len(content)}"
                )
            except FileChanged:
                raise
            except OSError:
                if tries == TRIES:
                    raise
                self._pause(FIRST_PAUSE_S * 2 ** (tries - 1))
        raise AssertionError("unreachable")

    def _check_whole(self, folder: Path) -> dict[str, str]:
        """Check that nothing is named which is missing; return the sums. Raises Incomplete."""
        own = self._version.own
        names = {file.name for file in self._version.files}
        sums = {}
        if own(SUMS) in names:
            said = read_sums(_text_of(folder / own(SUMS)))
            sums = {own(name): digest for name, digest in said.items()}
            _check_there(SUMS, list(sums), names)
        try:
            who, named = self._named(folder)
        except ConfigError:
            return sums  # loading it says what is wrong, for all to see
        _check_there(who, [own(name.removeprefix("./")) for name in named], names)
        return sums

    def _named(self, folder: Path) -> tuple[str, list[str]]:
        """Return the file that describes the version, and the files that it names.

        Raises ConfigError: it cannot be read.
        """
        version = self._version
        if not version.inner:
            there = [file.name for file in version.files]
            return DEFINITION, files_named_in(folder / DEFINITION, there)
        config = read_config(folder / CONFIG, version.name, folder / version.inner)
        return CONFIG, [str(config.source.values["file"])]  # of each format that is read there

    def _first(self) -> list[StoredFile]:
        """Return the files that say which others there should be. Raises ConfigError."""
        version = self._version
        known = (version.own(SUMS), CONFIG if version.inner else DEFINITION)
        small = [file for file in version.files if file.size <= MAX_NOTES_BYTES]
        if large := [file.name for file in {*version.files} - {*small} if file.name in known]:
            raise ConfigError(f"{large[0]}: expected at most {MAX_NOTES_BYTES} bytes")
        # Triton's file is read with the labels beside it.
        beside = [file for file in small if version.inner and "/" not in file.name]
        return [file for file in small if file.name in known or file in beside]


def _damage(names: Sequence[str], is_alone: bool) -> ConfigError:
    """Return the error of damaged files; one that `is_alone` has nothing beside it to say more."""
    no_md5 = (
        "; or the bucket encrypts with a key of its own (SSE-KMS), and has no checksum of it: make "
        f"a folder of it, with a model.yaml and a {SUMS}"
    )
    return ConfigError(
        f"{', '.join(sorted(names))}: expected the content that {SUMS} or the store's own checksum "
        f"says; got other bytes: the file was damaged in the store or on its way{no_md5 * is_alone}"
    )


def missing_of(named: Sequence[str], names: set[str]) -> list[str]:
    """Return which files or folders that are `named` are not among the files with `names`."""
    # A SavedModel is a folder.
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    return sorted({name.removeprefix("./").rstrip("/") for name in named} - names - folders)


def _check_there(who: str, named: Sequence[str], names: set[str]) -> None:
    if missing := missing_of(named, names):
        raise Incomplete(
            f"the upload has not ended: {who} names {brief(missing[0], 200)}, which is not there"
        )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path.name}: expected text; got other bytes") from err
