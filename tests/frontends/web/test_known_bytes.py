"""What the server remembers of what clients send: never more bytes than its page says.

Each flood makes up the worst that a client could send: ever new texts of a kind that takes the most
memory for its length. Memory is measured, and compared with the bound of the cache. The sum of the
bounds is compared with docs/memory.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
from twisted.web.http_headers import _NameEncoder

from batcher.codecs import negotiation, response_coding
from batcher.frontends.endpoints import routing
from batcher.frontends.endpoints.oip import infer
from batcher.frontends.web.http11 import heads, refusals
from tests.support.http import ROW, MemoryServer, ask
from tests.support.memory import held_after

PAGE = Path(__file__).parents[3] / "docs" / "memory.md"
NOISE_BYTES = 100_000
"""Bytes that a measurement finds without a flood."""

RENDERED_BYTES = 1 << 20  # 1,024 heads of answers
NAMES_BYTES = 8 << 20  # 10,000 names that twisted.web remembers
MIB = 1 << 20


def words(most: int) -> list[str]:
    return ["".join(letters) for letters in product(ascii_lowercase, repeat=2)][:most]


def media_types(number: int) -> Iterator[str]:
    yield f"x/{number}"
    yield f"x/{number}" + "".join(f";{word}={word}" for word in words(64))
    yield f"x/{number};a*=utf-8''" + "a" * 900 + "%F0%9F%98%80"
    yield f"x/{number}" + "y" * 900


def accepts(number: int) -> Iterator[str]:
    yield f"{number}"
    yield f"{number}," + ",".join(words(63))
    yield f"{number}" + "y" * 900


TEXTS: list[tuple[Callable[[str], object], Any, Callable[[int], Iterator[str]]]] = [
    (negotiation.media_type, negotiation._media_types, media_types),
    (negotiation.accepts_json, negotiation._accepts, accepts),
    (response_coding.response_coding, response_coding._codings, accepts),
]


@pytest.mark.parametrize(("read", "cache", "texts"), TEXTS, ids=["type", "accept", "coding"])
def test_texts_of_headers_take_no_more_than_their_bound(
    read: Callable[[str], object], cache: Any, texts: Callable[[int], Iterator[str]]
) -> None:
    cache.clear()
    bound = cache._max_bytes
    for kind in range(len(list(texts(0)))):

        def fill(kind: int = kind) -> None:
            for number in range(bound // 1000):
                read(list(texts(number))[kind])
                if cache.nbytes > 0.9 * bound:
                    break

        held = held_after(fill)
        assert held <= bound + NOISE_BYTES
        cache.clear()


@pytest.mark.parametrize("tail", ["", "a" * 200, "a" * 200 + "%F0%9F%98%80", "%C3%A9" * 200])
def test_paths_take_no_more_than_their_bound(tail: str) -> None:
    server = MemoryServer()

    def fill() -> None:
        number = 0
        while server.router._matches.nbytes < 0.9 * routing.MAX_MATCH_BYTES:
            server.router.match("POST", f"/models/m{number}{tail}/versions/1/predict")
            server.router.match("POST", f"/nowhere/{number}{tail}")
            number += 1

    assert held_after(fill) <= routing.MAX_MATCH_BYTES + NOISE_BYTES


def usual(number: int) -> bytes:
    return ask("/predict", ROW, ("X-Api-Key", f"{number}"), ("Accept", "*/*"))


def of_many_fields(number: int) -> bytes:
    fields = [(f"{number}-{word}", "v") for word in words(120)]
    return ask("/predict", ROW, *fields)


def of_a_long_path(number: int) -> bytes:
    return ask(f"/models/m/predict?{number}" + "a" * 1700, ROW)


def of_an_odd_letter(number: int) -> bytes:
    name = "m" * 1600 + "%F0%9F%98%80"
    return ask(f"/models/{name}{number}/predict", ROW)


@pytest.mark.parametrize("request_of", [usual, of_many_fields, of_a_long_path, of_an_odd_letter])
def test_heads_with_their_plans_take_no_more_than_their_bound(
    request_of: Callable[[int], bytes],
) -> None:
    server = MemoryServer(quotas={"*": {"rows_per_s": 1e9}})
    client = server.connect("loop")
    known = server.front.heads._heads

    def fill() -> None:
        number = 0
        while known.nbytes < 0.9 * heads.MAX_KNOWN_BYTES:
            client.send(request_of(number))
            number += 1
            if not number % 50:
                server.work()
                forget(server, client)
        server.work()
        forget(server, client)

    assert held_after(fill) <= heads.MAX_KNOWN_BYTES + routing.MAX_MATCH_BYTES + NOISE_BYTES


def json_of(number: int) -> list[str]:
    """Return requests of the Open Inference Protocol in JSON, without their binary tensors."""
    tensor = (
        '"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],'
        '"parameters":{"binary_data_size":16}}]'
    )
    many = ",".join(f'"{word}":{number}' for word in words(60))
    outputs = ",".join('{"name":"y","parameters":{"binary_data":true}}' for _ in range(1))
    return [
        f'{{"parameters":{{"n":{number}}},{tensor}}}',
        f'{{"parameters":{{{many}}},{tensor}}}',
        f'{{"parameters":{{"n":"{"a" * 700}{number}"}},{tensor},"outputs":[{outputs}]}}',
    ]


@pytest.mark.parametrize("kind", range(3))
def test_json_before_binary_tensors_takes_no_more_than_its_bound_whatever_the_head(
    kind: int,
) -> None:
    server = MemoryServer()
    client = server.connect("loop")

    def fill() -> None:
        for number in range(600):
            text = json_of(number)[kind].encode()
            length = ("Inference-Header-Content-Length", str(len(text)))
            # Another head of HTTP each time: plans come and go, the JSON is kept once.
            request = ask("/v2/models/m/infer", text + ROW, length, ("X-Api-Key", f"{number % 7}"))
            client.send(request)
            if not number % 50:
                server.work()
                forget(server, client)
        server.work()
        statuses = [answer.status for answer in client.answers]
        assert set(statuses) == {200}
        forget(server, client)

    assert held_after(fill) <= infer.MAX_KNOWN_BYTES + 12 * NOISE_BYTES


def test_the_last_head_of_a_connection_takes_no_more_than_the_readme_says() -> None:
    server = MemoryServer(quotas={"*": {"rows_per_s": 1e9}})
    settings = server.settings
    assert "6 · (`max_uri_bytes` + `max_header_bytes`) of heads" in _page()
    name = "m" * (settings.max_uri_bytes - 100) + "%F0%9F%98%80"
    fields = [(f"{number}", "v" * 230) for number in range(120)]
    request = ask(f"/models/{name}/predict", ROW, *fields)
    assert len(request) > 0.8 * (settings.max_uri_bytes + settings.max_header_bytes)
    clients = [server.connect("loop") for _ in range(20)]

    def fill() -> None:
        for client in clients:
            client.send(bytes(bytearray(request)))
            client.send(bytes(bytearray(request)))
        server.work()
        for client in clients:
            forget(server, client)

    held = held_after(fill) / len(clients)
    assert held <= 6 * (settings.max_uri_bytes + settings.max_header_bytes)


def forget(server: MemoryServer, client: Any) -> None:
    """Let go of what only the test keeps."""
    server.calls.clear()
    server.lines.clear()
    server.front.methods.clear()
    client.received.clear()


def test_a_head_has_a_bounded_number_of_fields_and_short_names() -> None:
    server = MemoryServer()
    for fields, status in (
        ([(f"X{number}", "v") for number in range(refusals.MAX_HEADER_FIELDS - 1)], 200),
        ([(f"X{number}", "v") for number in range(refusals.MAX_HEADER_FIELDS)], 431),
        ([("Cookie", "a=b")] * refusals.MAX_HEADER_FIELDS, 431),
        ([("X" * refusals.MAX_NAME_BYTES, "v")], 200),
        ([("X" * (refusals.MAX_NAME_BYTES + 1), "v")], 431),
    ):
        client = server.connect("loop")
        client.send(ask("/livez", b"", *fields))
        server.turn()
        assert [answer.status for answer in client.answers] == [status]


def test_twisted_web_remembers_a_bounded_number_of_names() -> None:
    names = _NameEncoder._MAX_CACHED_HEADERS
    assert names * 2 * (refusals.MAX_NAME_BYTES + 33 + 100) <= NAMES_BYTES


def test_the_page_of_memory_says_how_much_is_remembered() -> None:
    caches = negotiation._media_types, negotiation._accepts, response_coding._codings
    fixed = sum(cache._max_bytes for cache in caches) + RENDERED_BYTES + NAMES_BYTES
    total = fixed + routing.MAX_MATCH_BYTES + heads.MAX_KNOWN_BYTES
    row = re.search(r"^\| routes, heads and values of headers .*\| (\d+) MiB", _page(), re.M)
    model = re.search(r"and (\d+) MiB for each version of a model", _page())
    assert row
    assert model
    assert int(row[1]) == -(-total // MIB)
    assert int(model[1]) * MIB == infer.MAX_KNOWN_BYTES


def _page() -> str:
    return PAGE.read_text()
