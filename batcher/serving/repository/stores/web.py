"""A web server with models: files of an index, or of folders that the server lists.

    asked for                answer                          what is listed
    FOLDER/index.json        {"files": [{"name", "size", …}]} what the index says; one request
    FOLDER/, and each below  nginx's JSON, or a page of links the links; a HEAD for each file

An index may hold a `sha256` or an `etag` of each file, which is the tag. Of a page the tags are the
ETags, or the times of change, that HEAD tells. A server needs to support ranges.

`urllib` is enough: it honours `HTTPS_PROXY`, `NO_PROXY` and `SSL_CERT_FILE`. A password for the
server stands in `~/.netrc`, as for other programs, and is never sent on to another host.
"""

from __future__ import annotations

import base64
import json
import netrc
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message
from html.parser import HTMLParser
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from batcher.errors import ConfigError
from batcher.serving.repository.stores.names import MAX_DEPTH, file_fault
from batcher.serving.repository.stores.secrets import without_secrets
from batcher.serving.repository.stores.store import FileChanged, StoredFile

INDEX = "index.json"
"""The file that lists all files of a folder and below."""

TIMEOUT_S = 30.0
"""Seconds of silence after which a server counts as away."""

MAX_LISTING_BYTES = 16 << 20
"""Bytes of an index or of a page of links."""

MAX_PAGES = 10_000
"""Folders of one web server that are listed."""


class WebStore:
    """Files of a web server. The thread of the stores, and threads that fetch for it."""

    def __init__(self, address: str) -> None:
        """Read files below `address`, an https:// address without a slash at its end."""
        self._address = address
        self._opener: OpenerDirector = build_opener(_OnlyHttps)
        self._authorization = _authorization(urlsplit(address).hostname or "")
        # Of each file since the last listing: parts of two contents would make a third.
        self._tags: dict[str, str] = {}

    def list(self, prefix: str) -> list[StoredFile]:
        """Return the files in the folder `prefix` and below it. Raises OSError, ConfigError."""
        start = f"{prefix}/" if prefix else ""
        self._tags = {}
        index = self._get(f"{start}{INDEX}", missing=True)
        if index is not None:
            return [file._replace(name=start + file.name) for file in _of_index(index, prefix)]
        return list(self._walk(start))

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        """Return a range of `file`. Raises OSError, FileChanged."""
        wanted = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        with self._answer(file.name, headers=wanted) as answer:
            if answer.status != 206:
                raise OSError(
                    f"{self._address}/{file.name}: expected a server that supports ranges (206); "
                    f"got {answer.status}"
                )
            size = answer.headers.get("Content-Range", "").rpartition("/")[2]
            tag = _tag(answer.headers)
            if size != str(file.size) or self._tags.setdefault(file.name, tag) != tag:
                raise FileChanged(file.name)
            content: bytes = answer.read()
            return content

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
                    yield self._head(path)

    def _head(self, name: str) -> StoredFile:
        with self._answer(name, "HEAD") as answer:
            size = answer.headers.get("Content-Length")
            if size is None:
                raise OSError(f"{self._address}/{name}: expected a Content-Length; got none")
            tag = self._tags[name] = _tag(answer.headers)
            return StoredFile(name, int(size), tag)

    def _get(self, name: str, missing: bool) -> bytes | None:
        """Return a listing; None if it is not there and may be `missing`. Raises OSError."""
        try:
            with self._answer(name) as answer:
                content: bytes = answer.read(MAX_LISTING_BYTES + 1)
        except FileNotFoundError:
            if missing:
                return None
            raise
        if len(content) > MAX_LISTING_BYTES:
            raise ConfigError(
                f"{self._address}/{name}: expected at most {MAX_LISTING_BYTES} bytes of a listing"
            )
        return content

    def _answer(self, name: str, method: str = "GET", headers: dict[str, str] | None = None) -> Any:
        request = Request(self._url(name), method=method, headers=headers or {})
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            return self._opener.open(request, timeout=TIMEOUT_S)
        except HTTPError as err:
            err.close()
            kind = FileNotFoundError if err.code == 404 else OSError
            raise kind(f"{self._address}/{name}: the server answers {err.code}") from None
        except (URLError, OSError, ValueError) as err:
            why = without_secrets(str(getattr(err, "reason", err)))
            raise OSError(f"{self._address}/{name}: {why}") from None

    def _url(self, name: str) -> str:
        return f"{self._address}/{quote(name)}"


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


def _of_index(content: bytes, prefix: str) -> list[StoredFile]:
    """Return the files of an index. Raises ConfigError."""
    try:
        files = json.loads(content)["files"]
        return [
            StoredFile(str(each["name"]), int(each["size"]), _tag_of_index(each)) for each in files
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        place = f"{prefix}/{INDEX}" if prefix else INDEX
        raise ConfigError(
            f'{place}: expected {{"files": [{{"name": …, "size": …, "sha256": …}}]}}; got '
            f"something else: {str(err)[:200]!r}"
        ) from None


def _tag_of_index(entry: dict[str, Any]) -> str:
    return str(entry.get("sha256") or entry.get("etag") or "")


def _names_in(page: bytes, url: str) -> list[str]:
    """Return the names of files and, with a slash at the end, folders in the listing at `url`."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        return [
            str(each["name"]) + "/" * (each["type"] == "directory") for each in json.loads(page)
        ]
    links = _Links()
    links.feed(page.decode("utf-8", "replace"))
    found: dict[str, None] = {}
    for link in links.links:
        target = urljoin(url, link.partition("#")[0].partition("?")[0])
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
