"""A web server as a store: what it lists, and what comes of answers that are wrong or hostile."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any
from urllib.request import HTTPSHandler, Request, build_opener

import pytest

from batcher.errors import ConfigError
from batcher.serving.repository.stores import web
from batcher.serving.repository.stores.store import FileChanged, StoredFile
from batcher.serving.repository.stores.web import WebStore

ADDRESS = "https://host/models"


class _Connection(io.BytesIO):
    """Bytes that a server has sent, for a response that reads them."""

    def makefile(self, mode: str) -> io.BytesIO:
        return self


class Site(HTTPSHandler):
    """A web server without a network: raw answers, with their heads, by path.

    Attributes:
        answers: what is sent, by method and path; everything else is a 404.
        asked: what was asked for, and the headers of the last request.
    """

    def __init__(self) -> None:
        """Answer nothing yet."""
        super().__init__(context=ssl.create_default_context())
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}

    def put(self, path: str, body: bytes, *headers: str, status: str = "200 OK") -> None:
        """Answer a GET of `path`, below the store's address."""
        lines = [f"HTTP/1.1 {status}", *headers, *self._length(headers, body), "", ""]
        self.answers[f"GET /models/{path}"] = "\r\n".join(lines).encode() + body

    def head(self, path: str, *headers: str) -> None:
        """Answer a HEAD of `path`."""
        self.answers[f"HEAD /models/{path}"] = "\r\n".join(
            ["HTTP/1.1 200 OK", *headers, "", ""]
        ).encode()

    def _length(self, headers: tuple[str, ...], body: bytes) -> list[str]:
        lower = "".join(headers).lower()
        is_said = "content-length" in lower or "chunked" in lower
        return [] if is_said else [f"Content-Length: {len(body)}"]

    def https_open(self, req: Request) -> Any:
        """Answer a request."""
        line = f"{req.get_method()} {req.selector}"
        self.asked.append(line)
        self.headers = {**req.headers, **req.unredirected_hdrs}
        sent = self.answers.get(line, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        connection: Any = _Connection(sent)
        response: Any = HTTPResponse(connection, method=req.get_method())
        response.begin()
        response.url, response.msg = req.full_url, response.reason
        return response


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a server that every store asks."""
    site = Site()
    monkeypatch.setattr(web, "build_opener", lambda *handlers: build_opener(site, *handlers))
    return site


def index(*files: dict[str, Any]) -> bytes:
    """Return an index of `files`."""
    return json.dumps({"files": files}).encode()


def test_an_index_lists_all_files_by_one_request(site: Site) -> None:
    site.put("index.json", index({"name": "m/1/f", "size": 3, "sha256": "abc"}))
    assert WebStore(ADDRESS).list("") == [StoredFile("m/1/f", 3, "sha256:abc")]
    assert site.asked == ["GET /models/index.json"]


def test_an_index_is_read_once_while_it_stays_as_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("index.json", index({"name": "m/1/f", "size": 3}, {"name": "n/1/f", "size": 3}))
    store = WebStore(ADDRESS)
    found = store.list("")
    with monkeypatch.context() as patched:
        patched.setattr(web, "_of_index", lambda *arguments: pytest.fail("read again"))
        assert store.list("") == found
    assert store.list("m") == found[:1]
    site.put("index.json", index({"name": "m/2/f", "size": 3}))
    assert store.list("m") == [StoredFile("m/2/f", 3, "")]


def test_an_index_tells_of_one_folder_on_a_server_that_lists_none(site: Site) -> None:
    names = ("m/1/f", "m/2/f", "more/1/f")
    site.put("index.json", index(*({"name": name, "size": 3} for name in names)))
    assert [file.name for file in WebStore(ADDRESS).list("m")] == ["m/1/f", "m/2/f"]
    assert site.asked == ["GET /models/index.json"]


def test_without_an_index_pages_of_links_are_followed(site: Site) -> None:
    site.put("", b"<a href='../'>up</a><a href='m/'>m</a><a href='https://else/x'>x</a>")
    site.put("m/", b"<a href='net%20one?C=N'>net</a><a href='/models/m/b'>b</a>")
    site.head("m/net%20one", "Content-Length: 5", 'ETag: W/"t"')
    site.head("m/b", "Content-Length: 6")
    assert sorted(WebStore(ADDRESS).list("")) == [
        StoredFile("m/b", 6, ""),
        StoredFile("m/net one", 5, "t"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please log in</body></html>",
        b"[]",
        b'{"files": 3}',
        b'{"files": ["m/1/f"]}',
        b'{"files": [{"name": "m/1/f"}]}',
        b'{"files": [{"name": "m/1/f", "size": -1}]}',
        b'{"files": [{"name": "m/1/f", "size": "many"}]}',
        b'{"files": [{"name": "m/1/f", "size": 1e999}]}',
        b'{"files": [{"name": ["m/1/f"], "size": 1}]}',
        b'{"files": [{"name": "m/1/f", "size": ' + b"9" * 5000 + b"}]}",
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_an_index_that_is_none_is_refused(site: Site, body: bytes) -> None:
    site.put("index.json", body)
    with pytest.raises(ConfigError, match=r'index.json: expected {"files": '):
        WebStore(ADDRESS).list("")


def test_an_index_of_too_many_bytes_or_files_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("index.json", b" " * 50, "Content-Length: 1000000000")
    monkeypatch.setattr(web, "MAX_LISTING_BYTES", 40)
    with pytest.raises(ConfigError, match="at most 40 bytes of a listing"):
        WebStore(ADDRESS).list("")
    monkeypatch.setattr(web, "MAX_LISTING_BYTES", 1000)
    monkeypatch.setattr(web, "MAX_LISTED", 2)
    site.put("index.json", index(*[{"name": f"m/1/{n}", "size": 1} for n in range(3)]))
    with pytest.raises(
        ConfigError, match=r"at most 2 files.*put models into a folder of their own"
    ):
        WebStore(ADDRESS).list("")


@pytest.mark.parametrize(
    ("page", "names"),
    [
        (b"<![ no HTML <a href='f'>", []),
        (b"<a href='http://[broken'>x</a><a href='f'>f</a>", ["f"]),
        (b"\x00\xff<a href='..%2f..%2fetc/passwd'>x</a><a href='f'>f</a>", ["f"]),
        (b'{"name": "f"}', []),
        (b'[{"name": "f", "type": "file"}]', ["f"]),
    ],
)
def test_a_page_of_garbage_lists_what_can_be_read(
    site: Site, page: bytes, names: list[str]
) -> None:
    site.put("", page)
    site.head("f", "Content-Length: 1")
    assert [file.name for file in WebStore(ADDRESS).list("")] == names


@pytest.mark.parametrize("length", ["Content-Length: many", "Content-Length: -4", "X: 1"])
def test_a_file_of_no_known_size_is_named(site: Site, length: str) -> None:
    site.put("", b"<a href='f'>f</a>")
    site.head("f", length)
    with pytest.raises(OSError, match="https://host/models/f: expected a Content-Length"):
        WebStore(ADDRESS).list("")


def test_a_page_that_is_cut_short_is_no_listing(site: Site) -> None:
    site.put("", b"<a href='f'>f</a>", "Content-Length: 400")
    site.head("f", "Content-Length: 1")
    with pytest.raises(OSError, match="expected 400 bytes; the connection ended after 17"):
        WebStore(ADDRESS).list("")


FILE = StoredFile("m/1/f", 10, "t")
RANGE = "Content-Range: bytes 0-3/10"


def fetched(site: Site, *headers: str, body: bytes = b"abcd", status: str = "206 Part") -> bytes:
    """Return what comes of the first four bytes of FILE."""
    site.put("m/1/f", body, *headers, status=status)
    return WebStore(ADDRESS).fetch(FILE, 0, 4)


def test_a_range_is_asked_for(site: Site) -> None:
    assert fetched(site, RANGE) == b"abcd"
    assert site.headers["Range"] == "bytes=0-3"


def test_a_body_that_does_not_end_is_read_no_further_than_it_should(site: Site) -> None:
    assert len(fetched(site, RANGE, body=b"x" * 100_000)) == 5
    chunked = b"186a0\r\n" + b"x" * 100_000
    assert len(fetched(site, RANGE, "Transfer-Encoding: chunked", body=chunked)) == 5


def test_a_body_that_comes_too_slowly_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "BODY_S", -1.0)
    with pytest.raises(OSError, match="expected the end of the answer within"):
        fetched(site, RANGE)


@pytest.mark.parametrize(
    ("headers", "body", "what"),
    [
        ([RANGE, "Content-Length: 4"], b"ab", "expected 4 bytes; the connection ended after 2"),
        ([RANGE, "Transfer-Encoding: chunked"], b"4\r\nab", "IncompleteRead"),
        ([RANGE, "Transfer-Encoding: chunked"], b"zz\r\nab", "IncompleteRead"),
    ],
)
def test_a_body_that_is_cut_short_is_an_error_that_is_tried_again(
    site: Site, headers: list[str], body: bytes, what: str
) -> None:
    with pytest.raises(OSError, match=f"https://host/models/m/1/f: .*{what}"):
        fetched(site, *headers, body=body)


def test_answers_that_are_no_http_are_named(site: Site) -> None:
    site.answers["GET /models/m/1/f"] = b"SSH-2.0-OpenSSH_9.2\r\n"
    with pytest.raises(OSError, match=r"https://host/models/m/1/f: SSH-2\.0"):
        WebStore(ADDRESS).fetch(FILE, 0, 4)


def test_a_server_without_ranges_is_named(site: Site) -> None:
    with pytest.raises(OSError, match=r"m/1/f: expected a server that supports ranges \(206\)"):
        fetched(site, status="200 OK")


@pytest.mark.parametrize("headers", [["Content-Range: bytes 0-3/11"], ["X: 1"]])
def test_another_size_is_another_file(site: Site, headers: list[str]) -> None:
    with pytest.raises(FileChanged):
        fetched(site, *headers)


def test_a_tag_that_changes_between_two_parts_is_another_file(site: Site) -> None:
    store = WebStore(ADDRESS)
    for tag in ("one", "one", "two"):
        site.put("m/1/f", b"abcd", RANGE, f"ETag: {tag}", status="206 Part")
        if tag == "one":
            assert store.fetch(FILE, 0, 4) == b"abcd"
    with pytest.raises(FileChanged):
        store.fetch(FILE, 0, 4)


@pytest.mark.parametrize(
    "target", ["http://host/models/f", "file:///etc/passwd", "ftp://host/f", "//[broken"]
)
def test_a_redirection_away_from_https_is_not_followed(site: Site, target: str) -> None:
    with pytest.raises(OSError, match="https://host/models/m/1/f: "):
        fetched(site, f"Location: {target}", status="302 Found")
    assert site.asked == ["GET /models/m/1/f"]


def test_a_redirection_in_a_circle_ends(site: Site) -> None:
    with pytest.raises(OSError, match="answers 302, a redirection that is not followed"):
        fetched(site, "Location: https://host/models/m/1/f", status="302 Found")


def test_a_password_is_not_sent_on_to_another_host(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / ".netrc").write_text("machine host login me password s3cr3t\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    site.put("m/1/g", b"abcd", RANGE, status="206 Part")
    store = WebStore(ADDRESS)
    assert store.fetch(FILE._replace(name="m/1/g"), 0, 4) == b"abcd"
    assert site.headers["Authorization"].startswith("Basic ")
    site.put("m/1/f", b"", "Location: https://else/models/m/1/g", status="302 Found")
    assert store.fetch(FILE, 0, 4) == b"abcd"
    assert "Authorization" not in site.headers


@pytest.mark.parametrize("method", ["list", "fetch"])
def test_an_address_is_quoted_as_a_path_needs_it(site: Site, method: str) -> None:
    store = WebStore("https://host/my models/ä")
    ask: dict[str, Callable[[], object]] = {
        "list": lambda: store.list(""),
        "fetch": lambda: store.fetch(FILE, 0, 4),
    }
    with pytest.raises(
        FileNotFoundError, match=r"https://host/my models/ä/.*: the server answers 404"
    ):
        ask[method]()
    assert site.asked[0].startswith("GET /my%20models/%C3%A4/")
