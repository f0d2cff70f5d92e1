"""A bucket of Amazon S3, Google Cloud Storage or Azure Blob Storage, by the library obstore.

Its calls wait, and let other threads run meanwhile, so they run on a thread under every event loop.
Its asynchronous calls would need asyncio.

Who may read the bucket says the cloud's usual environment, which obstore reads by itself: keys,
roles of machines and of pods. A proxy is taken from `HTTPS_PROXY` and `NO_PROXY`, and certificates
of an authority of one's own from the file that `SSL_CERT_FILE` names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batcher.errors import ConfigError
from batcher.serving.repository.stores.checksums import PART_SIZES
from batcher.serving.repository.stores.secrets import without_secrets
from batcher.serving.repository.stores.store import (
    MAX_LISTED,
    FileChanged,
    NoCreation,
    StoredFile,
    too_many,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CERTIFICATES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE")
"""Variables that name a file of certificates."""

_NO_CAUSE = "error sending request"
_CAUSE = re.compile(r'InvalidCertificate\(\s*(\w+)|(?:message|error): "([^"]+)"|\b(TimedOut)\b')
"""What the library says below such an error, for its own programmers."""

_UNTRUSTED = " of the certificate: SSL_CERT_FILE names a file of authorities that are trusted"

_OF_MACHINES = re.compile(r"//(169\.254\.\d+\.\d+|metadata\.google\.internal)/")
"""Where clouds tell their machines credentials: asked where the environment has none."""

_NO_CREDENTIALS = (
    ": the environment has no credentials, and this machine gets none (docs/stores.md names them)"
)

MAX_PARTS = 10_000
"""Parts of one upload that S3 and Google take: of 5 MiB each, 48 GiB."""

_CLIENT: dict[str, Any] = {
    "connect_timeout": "5s",
    "read_timeout": "30s",  # of silence; a large part on a slow line takes longer altogether
    "timeout": "15m",
}
_RETRY: dict[str, Any] = {
    # Soon enough to begin from the cache while a store is away; parts are tried again by `Download`
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=20),
}
_LISTING_CLIENT = {**_CLIENT, "read_timeout": "15s"}
_LISTING_RETRY = {**_RETRY, "retry_timeout": timedelta(seconds=10)}
"""A page of a listing takes a second, and people wait for the first one."""


class Bucket:
    """Files in a bucket, or in a folder of one. The thread of the stores."""

    def __init__(self, address: str) -> None:
        """Open the bucket at `address`; nothing is asked of it.

        Raises:
            ImportError: the extra `stores` is not installed.
            ConfigError: the environment is wrong.
        """
        # Here, since most servers are installed without it.
        import obstore
        from obstore.store import from_url

        self._address = address
        self._obstore = obstore
        open_any: Callable[..., ObjectStore] = from_url  # its overloads know no dictionaries
        try:
            options = {**_certificates(), "allow_http": _may_lack_tls(address)}
            self._store = open_any(
                address, client_options={**_CLIENT, **options}, retry_config=_RETRY
            )
            self._lists = open_any(
                address, client_options={**_LISTING_CLIENT, **options}, retry_config=_LISTING_RETRY
            )
        except (obstore.exceptions.BaseError, ValueError, OSError) as err:
            raise ConfigError(f"{address}: {_text(err)}") from None

    def list(self, prefix: str) -> list[StoredFile]:
        """Return the files in the folder `prefix` and below it. Raises OSError, ConfigError."""
        found: dict[str, StoredFile] = {}
        with self._translated():
            for file in self._files(prefix):
                found[file.name] = file
                if len(found) > MAX_LISTED:
                    raise too_many(self._address, MAX_LISTED)
        return _without_folders(found)

    def _files(self, prefix: str) -> Iterator[StoredFile]:
        """Yield the files in the folder `prefix` and below it, maybe some of them twice.

        The library ends a listing at the first name such as `m//net.onnx`. Then each folder is
        listed by itself, and the name stands for all of the folder that has it.
        """
        try:
            for chunk in self._obstore.list(self._lists, prefix or None):
                yield from map(_stored, chunk)
        except self._obstore.exceptions.InvalidPathError as err:
            yield from self._files_by_folder(prefix, err)

    def _files_by_folder(self, prefix: str, error: Exception) -> Iterator[StoredFile]:
        invalid = self._obstore.exceptions.InvalidPathError
        try:
            inside = self._obstore.list_with_delimiter(self._lists, prefix or None)
        except invalid:
            if not prefix:
                raise error from None  # the first one names the file
            yield StoredFile(_odd_name(str(error), prefix), 0, "")
            return
        yield from map(_stored, inside["objects"])
        for folder in inside["common_prefixes"]:
            yield from self._files(folder)

    def find(self, name: str) -> StoredFile | None:
        """Return the file `name`; None if there is none. Raises OSError."""
        with self._translated():
            try:
                meta = self._obstore.head(self._store, name)
            except (self._obstore.exceptions.NotFoundError, FileNotFoundError):
                return None
        return StoredFile(meta["path"], meta["size"], _tag(meta["e_tag"]))

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        """Return a range of `file`. Raises OSError, FileChanged."""
        with self._translated():
            try:
                options: Any = {"range": (start, end)}
                result = self._obstore.get(self._store, file.name, options=options)
            except (self._obstore.exceptions.NotFoundError, FileNotFoundError):
                raise FileChanged(file.name) from None
            meta = result.meta
            if meta["size"] != file.size or _tag(meta["e_tag"]) != file.tag:
                raise FileChanged(file.name)
            return bytes(result.bytes())

    def put(self, name: str, path: Path) -> None:
        """Store the file at `path` under `name`. Raises OSError."""
        with self._translated():
            nbytes = _part_bytes(path.stat().st_size)
            self._obstore.put(self._store, name, path, chunk_size=nbytes)

    def create(self, name: str, content: bytes) -> bool:
        """Store a new file, or return False if there is one. Raises OSError, NoCreation."""
        errors = self._obstore.exceptions
        with self._translated():
            try:
                self._obstore.put(self._store, name, content, mode="create")
            except (errors.AlreadyExistsError, errors.PreconditionError, FileExistsError):
                return False
            except (errors.BaseError, NotImplementedError) as err:
                if _is_unsupported(err):
                    raise NoCreation(f"{self._address}: {_text(err)}") from None
                raise
        return True

    def delete(self, names: Sequence[str]) -> None:
        """Remove files. Raises OSError."""
        gone = (self._obstore.exceptions.NotFoundError, FileNotFoundError)
        with self._translated():
            for name in names:
                with suppress(*gone):
                    self._obstore.delete(self._store, name)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Have the library's errors be OSErrors, without secrets."""
        try:
            yield
        except (FileChanged, NoCreation):
            raise
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as err:
            raise OSError(f"{self._address}: {_text(err)}") from None


def _part_bytes(size: int) -> int:
    """Return the bytes of each part of an upload of `size` bytes: of a size that checks know."""
    return next((each for each in PART_SIZES if size <= each * MAX_PARTS), PART_SIZES[-1])


def _without_folders(found: Mapping[str, StoredFile]) -> list[StoredFile]:
    """Return the files `found` by their names, but those that stand for folders.

    Some programs, the console of S3 among them, put an empty file `m/1/sub/` where they make a
    folder, and the library takes the slash away.
    """
    folders = set[str]()
    for name in found:
        folder = name.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return [file for name, file in found.items() if file.size or name not in folders]


def _stored(each: Any) -> StoredFile:
    return StoredFile(each["path"], each["size"], _tag(each["e_tag"]))


def _is_unsupported(error: Exception) -> bool:
    """Return whether the library or the store says that it has no such request."""
    name = type(error).__name__
    # The last is the code of S3's protocol for a header that a store does not know.
    return name in ("NotImplementedError", "NotSupportedError") or "NotImplemented" in str(error)


def _odd_name(error: str, folder: str) -> str:
    """Return the name in `folder` that the library's `error` says."""
    quoted = error.partition('"')[2].partition('"')[0]
    start = f"/{quoted}".find(f"/{folder}/")
    return quoted[start:] if start >= 0 else f"{folder}//"


def _tag(tag: str | None) -> str:
    """Return an ETag as listings and answers both have it: some put quotes around it."""
    return (tag or "").removeprefix("W/").strip('"')


def _may_lack_tls(address: str) -> bool:
    """Return whether the environment allows the store at `address` to be asked without TLS."""
    cloud = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}[address.partition(":")[0]]
    return os.environ.get(f"{cloud}_ALLOW_HTTP", "").lower() in ("true", "1")


def _certificates() -> dict[str, Any]:
    """Return the option for the certificates that the environment names. Raises OSError."""
    path = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    return {"root_certificate": Path(path).read_bytes()} if path else {}


def _text(error: Exception) -> str:
    """Return the library's message without what it says for its own programmers.

    Of that stays why no connection was made, which the message leaves out.
    """
    text, _, source = str(error).partition("\n\nDebug source:")
    if text.rstrip().endswith(_NO_CAUSE) and (found := _CAUSE.search(source)) is not None:
        cause = next(filter(None, found.groups()))
        text += f": {cause}{_UNTRUSTED * (cause == 'UnknownIssuer')}"
    return without_secrets(f"{text}{_NO_CREDENTIALS * (_OF_MACHINES.search(text) is not None)}")
