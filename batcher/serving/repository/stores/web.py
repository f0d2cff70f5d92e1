"""A web server with models: files of an index, or of folders that the server lists.

    asked for                answer                          what is listed
    FOLDER/index.json        {"files": [{"name", "size", …}]} what the index says; one request
    FOLDER/, and each below  nginx's JSON, or a page of links the links; a HEAD for each file

An index may hold a `sha256` or an `etag` of each file, which is the tag. Of a page the tags are the
ETags, or the times of change, that HEAD tells. A server needs to support ranges.

`urllib` is enough: it honours `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE`. A password for the
server stands in `~/.netrc`, as for other programs, and is never sent on to another host.

A server may answer anything: a page of a proxy instead of an index, a body that never ends, lengths
that are no numbers. All of it ends as an OSError or a ConfigError, after bounded bytes and time.
"""

from __future__ import annotations

import base64
import json
import netrc
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from html.parser import HTMLParser
from http.client import HTTPException
from itertools import islice
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from batcher.core.error_text import brief
from batcher.errors import ConfigError
from batcher.serving.repository.stores.checksums import SAID
from batcher.serving.repository.stores.names import MAX_DEPTH, file_fault
from batcher.serving.repository.stores.secrets import without_secrets
from batcher.serving.repository.stores.store import MAX_LISTED, FileChanged, StoredFile, too_many

INDEX = "index.json"
"""The file that lists all files of a folder and below."""

TIMEOUT_S = 30.0
"""Seconds of silence after which a server counts as away."""

LISTING_S = 15.0
"""The same where folders are listed: people wait for the first listing."""

MAX_LISTING_BYTES = 16 << 20
"""Bytes of an index or of a page of links."""

MAX_PAGES = 10_000
"""Folders of one web server that are listed."""

BODY_S = 900.0
"""Seconds that a body may take: a part of 64 MiB at 75 kB/s. A server that sends a byte now and
then is never silent, and would hold a thread for ever.
"""

READ_BYTES = 1 << 20
"""Bytes that are read at once, between looks at the time."""

_OF_PATHS = "/%:;=@,+$&!()*~"
"""What stands in paths as it is."""


class WebStore:
    """Files of a web server. The thread of the stores, and threads that fetch for it."""

    def __init__(self, address: str) -> None:
        """Read files below `address`, an https:// address without a slash at its end."""
        self._address = address
        parts = urlsplit(address)
        # The path may have a space in it, or letters that are not ASCII.
        self._quoted = f"{parts.scheme}://{parts.netloc}{quote(parts.path, safe=_OF_PATHS)}"
        self._opener: OpenerDirector = build_opener(_OnlyHttps)
        self._authorization = _authorization(parts.hostname or "")
        # Of each file since the last listing: parts of two contents would make a third.
        self._tags: dict[str, str] = {}
        # The last index, and what it lists: while JSON is read, no other thread of Python runs.
        self._read: tuple[str, bytes | None] = ("", None)
        self._found: list[StoredFile] = []

    def list(self, prefix: str) -> list[StoredFile]:
        """Return the files in the folder `prefix` and below it. Raises OSError, ConfigError."""
        start = f"{prefix}/" if prefix else ""
        self._tags = {}
        # That of all folders, since a server with an index need not have one for each, nor lists.
        index = self._get(INDEX, missing=True)
        if index is not None and (start, index) == self._read:
            return [*self._found]
        files = self._walk(start) if index is None else _of_index(index, start)
        found = list(islice(files, MAX_LISTED + 1))
        if len(found) > MAX_LISTED:
            raise too_many(self._address, MAX_LISTED)
        self._read, self._found = (start, index), found
        return [*found]

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        """Return a range of `file`. Raises OSError, FileChanged."""
        wanted = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        with self._answer(file.name, headers=wanted) as answer:
            if answer.status != 206:
                raise OSError(f"expected a server that supports ranges (206); got {answer.status}")
            size = answer.headers.get("Content-Range", "").rpartition("/")[2]
            tag = _tag(answer.headers)
            if size != str(file.size) or self._tags.setdefault(file.name, tag) != tag:
                raise FileChanged(file.name)
            return _body(answer, end - start)

    def _walk(self, start: str) -> Iterator[StoredFile]:
        """Yield the files of the folder `start`, which ends with a slash, and below it."""
        folders, pages = [start], 0
        while folders:
            folder, pages = folders.pop(), pages + 1
            if pages > MAX_PAGES:
                raise ConfigError(f"{self._address}: expected at most {MAX_PAGES} folders")
            page = self._get(folder, missing=bool(folder != start))
            for name in _names_in(page or b"", self._url(folder)):
                path = folder + name
                if name.endswith("/") and path.count("/") <= MAX_DEPTH:
                    folders.append(path)
                elif not name.endswith("/"):
                    yield self.head(path)

    def head(self, name: str) -> StoredFile:
        """Return what the server tells of the file `name`. Raises OSError."""
        with self._answer(name, "HEAD", seconds=LISTING_S) as answer:
            size = answer.headers.get("Content-Length")
            if size is None or not (size.isascii() and size.isdecimal()):
                raise OSError(f"expected a Content-Length, a number; got {brief(size, 50)}")
            tag = self._tags[name] = _tag(answer.headers)
            return StoredFile(name, int(size), tag)

    def _get(self, name: str, missing: bool) -> bytes | None:
        """Return a listing; None if it is not there and may be `missing`. Raises OSError."""
        try:
            with self._answer(name, seconds=LISTING_S) as answer:
                content = _body(answer, MAX_LISTING_BYTES)
        except FileNotFoundError:
            if missing:
                return None
            raise
        if len(content) > MAX_LISTING_BYTES:
            raise ConfigError(
                f"{self._address}/{name}: expected at most {MAX_LISTING_BYTES} bytes of a listing"
            )
        return content

    @contextmanager
    def _answer(
        self,
        name: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        seconds: float = TIMEOUT_S,
    ) -> Iterator[Any]:
        """Ask for the file `name`; what fails until the end of the block is an OSError."""
        try:
            request = Request(self._url(name), method=method, headers=headers or {})
            if self._authorization:
                request.add_unredirected_header("Authorization", self._authorization)
            with self._opener.open(request, timeout=seconds) as answer:
                yield answer
        except FileChanged:
            raise
        except HTTPError as err:
            err.close()
            kind = FileNotFoundError if err.code == 404 else OSError
            why = ", a redirection that is not followed" * (300 <= err.code < 400)
            raise kind(f"{self._address}/{name}: the server answers {err.code}{why}") from None
        except (HTTPException, OSError, ValueError) as err:
            why = without_secrets(str(getattr(err, "reason", err)) or type(err).__name__)
            raise OSError(f"{self._address}/{name}: {why}") from None

    def _url(self, name: str) -> str:
        return f"{self._quoted}/{quote(name)}"


def _body(answer: Any, most: int) -> bytes:
    """Return the body of `answer`, but no more than one byte above `most`.

    Raises OSError or HTTPException: it is cut short, or does not end.
    """
    content, until = bytearray(), time.monotonic() + BODY_S
    while len(content) <= most:
        read: bytes = answer.read1(min(READ_BYTES, most + 1 - len(content)))
        content += read
        if not read:
            break
        if time.monotonic() > until:
            raise TimeoutError(f"expected the end of the answer within {BODY_S:.0f} s")
    length = answer.headers.get("Content-Length", "0")
    if len(content) < min(int(length), most):
        raise OSError(f"expected {length} bytes; the connection ended after {len(content)}")
    return bytes(content)


class _OnlyHttps(HTTPRedirectHandler):
    """Follows a redirection to https alone: what is fetched is code."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Return the request for the new address; raises HTTPError for another scheme."""
        if urlsplit(newurl).scheme != "https":
            raise HTTPError(req.full_url, code, "a redirection away from https", headers, fp)
        followed = super().redirect_request(req, fp, code, msg, headers, newurl)
        if followed is not None:
            followed.method = req.get_method()
        return followed


class _Links(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the target of a link."""
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _of_index(content: bytes, start: str) -> Iterator[StoredFile]:
    """Yield the files of an index whose names begin with `start`. Raises ConfigError."""
    try:
        for each in json.loads(content)["files"]:
            name, size = each["name"], each["size"]
            if not isinstance(name, str) or type(size) is not int or size < 0:
                raise ValueError(each)
            if name.startswith(start):
                yield StoredFile(name, size, _tag_of_index(each))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise ConfigError(
            f'{INDEX}: expected {{"files": [{{"name": …, "size": …, "sha256": …}}]}}; got '
            f"something else: {brief(str(err), 200)}"
        ) from None


def _tag_of_index(entry: dict[str, Any]) -> str:
    if digest := entry.get("sha256"):
        return f"{SAID}{digest}"
    return str(entry.get("etag") or "")


def _names_in(page: bytes, url: str) -> list[str]:
    """Return the names of files and, with a slash at the end, folders in the listing at `url`."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        return [
            str(each["name"]) + "/" * (each["type"] == "directory") for each in json.loads(page)
        ]
    links = _Links()
    with suppress(AssertionError):  # so the parser gives up some pages that are no HTML
        links.feed(page.decode("utf-8", "replace"))
    found: dict[str, None] = {}
    for link in links.links:
        try:
            target = urljoin(url, link.partition("#")[0].partition("?")[0])
        except ValueError:  # it is no address
            continue
        # Links to folders above, to other hosts, and to orders of sorting are not of the folder.
        name = unquote(target[len(url) :]) if target.startswith(url) else ""
        if name and not file_fault(name.removesuffix("/")) and "/" not in name.removesuffix("/"):
            found[name] = None
    return list(found)


def _tag(headers: Message) -> str:
    """Return what changes with the content."""
    etag = str(headers.get("ETag") or headers.get("Last-Modified", ""))
    return etag.removeprefix("W/").strip('"')


def _authorization(host: str) -> str:
    """Return the header for a `host` of `~/.netrc`; empty without one."""
    with suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc().authenticators(host)
        if known is not None:
            pair = f"{known[0]}:{known[2]}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
    return ""
