"""Options: from a command line, to a command line, and to the bytes of a request."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.load import LoadOptions
from benchmarks.loadgen.options import parse
from tests.benchmarks.loadgen.doubles import URL


def test_a_command_line_becomes_options() -> None:
    line = (
        f"{URL} --schedule constant --rate 50 --duration 3 --warmup 0 --connections 8 --method put "
        "--body some.bin"
    )
    words = [
        *line.split(),
        "--header",
        "Accept: text/csv",
        "--header",
        "X-A:b:c",
        "--seed=4",
        "--json",
        "-",
    ]
    options, destination = parse(words, {"some.bin": b"abc"}.__getitem__)
    assert destination == "-"
    assert options == LoadOptions(
        URL,
        schedule="constant",
        rate=50.0,
        duration=3.0,
        warmup=0.0,
        connections=8,
        method="put",
        body=b"abc",
        headers=(("Accept", "text/csv"), ("X-A", "b:c")),
        seed=4,
    )


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(URL, method="GET"),
        LoadOptions(URL, closed=True, connections=3, random_body=0, method="POST"),
        LoadOptions(
            URL,
            schedule="constant",
            rate=0.1,
            body=b"\x00x",
            method="POST",
            headers=(("-a", "-b: c"),),
        ),
        LoadOptions(
            URL,
            realtime=True,
            max_lag_ms=0.5,
            warmup=0.0,
            seed=9,
            timeout=0.25,
            random_body=7,
            method="PUT",
        ),
    ],
)
def test_options_survive_their_command_line(options: LoadOptions) -> None:
    assert parse(options.argv(), {"-": options.body}.__getitem__) == (options, None)


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 0.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"duration": -1.0},
        {"duration": math.inf},
        {"warmup": -0.1},
        {"connections": 0},
        {"timeout": 0.0},
        {"seed": -1},
        {"schedule": "bursty"},
        {"url": "https://127.0.0.1/"},
        {"url": "127.0.0.1:8080"},
        {"url": "http://127.0.0.1/a b"},
        {"url": "http://127.0.0.1:99999/"},
        {"url": "http://127.0.0.1:0/"},
        {"method": "HEAD"},
        {"random_body": -1},
        {"body": b"x", "random_body": 1},
        {"closed": True, "realtime": True},
        {"headers": (("a", "b\r\nc: d"),)},
        {"headers": (("content-length", "3"),)},
        {"headers": (("", "b"),)},
    ],
)
def test_what_cannot_be_run_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        replace(LoadOptions(URL), **change)


@pytest.mark.parametrize(
    "words", [[URL, "--rate=0"], [URL, "--header=x"], [URL, "--body=none"], [], [URL, "--rat=1"]]
)
def test_a_mistake_in_the_command_line_exits_with_status_2(words: list[str]) -> None:
    def missing(name: str) -> bytes:
        raise FileNotFoundError(name)

    with pytest.raises(SystemExit) as caught:
        parse(words, missing)
    assert caught.value.code == 2


def test_a_request_without_a_body_is_a_get() -> None:
    assert LoadOptions("http://h:81/a?b=c").request == b"GET /a?b=c HTTP/1.1\r\nhost: h:81\r\n\r\n"


def test_a_request_with_a_body_states_its_length_and_type() -> None:
    head, _, body = LoadOptions("http://h", body=b"abc").request.partition(b"\r\n\r\n")
    fields = [b"host: h", b"content-length: 3", b"content-type: application/octet-stream"]
    assert head.split(b"\r\n") == [b"POST / HTTP/1.1", *fields]
    assert body == b"abc"


def test_given_headers_replace_the_usual_ones() -> None:
    head = LoadOptions(
        URL, body=b"{}", headers=(("Content-Type", "application/json"), ("Host", "x"))
    ).request
    assert head.lower().count(b"content-type:") == head.lower().count(b"host:") == 1
    assert b"Content-Type: application/json\r\n" in head


def test_a_random_body_has_its_length_and_follows_the_seed() -> None:
    bodies = [LoadOptions(URL, random_body=256, seed=seed).payload for seed in (1, 1, 2)]
    assert [len(body) for body in bodies] == [256] * 3
    assert bodies[0] == bodies[1] != bodies[2]


def test_a_description_names_no_host_and_shows_no_secret() -> None:
    options = LoadOptions(
        "http://secret.example:1/p", headers=(("Authorization", "secret"), ("Accept", "text/csv"))
    )
    described = options.describe()
    assert "secret" not in json.dumps(described)
    assert described["headers"] == {"Authorization": "(set)", "Accept": "text/csv"}
