"""The page of a model: the words, the picture and the numbers, in whatever state the model is."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.frontends.endpoints.conftest import Both
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, rows

PAGE = ask("/models/m", method="GET")
VOID = {"meta"}


class Outline(HTMLParser):
    """Reads a page: its links, its text, and whether tags are closed as they were opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == ["html"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note nothing: the parts of a picture have no links."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def slow_server(**settings: Any) -> MemoryServer:
    def slow(inputs: Any) -> Any:
        server.clock.advance(0.25)
        return {"y": inputs["x"]}

    server = MemoryServer(RecordingModel(predict=slow), defaults=settings)
    server.server.metrics.loop_seconds = lambda: 0.0
    return server


def page_of(answer: Answer) -> Outline:
    assert answer.status == 200
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert answer.header("x-content-type-options") == "nosniff"
    return Outline(answer.body.decode())


def test_it_says_that_nothing_has_come(both: Both) -> None:
    page = page_of(both(MemoryServer(), PAGE))
    assert "No request has come yet, so there are no batches to explain." in page.text
    assert "What to change" not in page.text


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("preprocess", "No batch was sent: preprocess has raised 1 exception."),
        ("predict", "Batches average 1 of 64 rows, and 100 % of them failed."),
    ],
)
def test_it_says_that_requests_fail_and_never_that_nothing_is_wrong(hook: str, words: str) -> None:
    def raises(inputs: Any) -> Any:
        raise ValueError("no")

    model = RecordingModel()
    setattr(model, hook, raises)
    server = MemoryServer(model, defaults={"warmup": False})
    assert over_connection(server, ask("/predict", rows(1.0).tobytes())).status == 500
    server.clock.advance(2)
    page = page_of(over_connection(server, PAGE))
    assert words in page.text
    assert "Mend the model" in page.text
    assert "nothing is wrong" not in page.text


def test_it_says_why_with_numbers_and_a_picture() -> None:
    server = slow_server()
    for values in ((1.0,), (1.0, 2.0)):
        server.clock.advance(2)
        over_connection(server, ask("/predict", rows(*values).tobytes()))
    answer = over_connection(server, PAGE)
    page = page_of(answer)
    assert "Batches average 1.5 of 64 rows because requests arrive one at a time" in page.text
    assert "nothing is wrong" in page.text
    assert "Nothing." in page.text
    assert "the model was free, and these were all rows that waited" in page.text
    assert b"<svg " in answer.body
    assert b"<script" not in answer.body


def test_a_look_at_the_very_moment_of_the_first_request_finds_nothing_to_measure() -> None:
    server = MemoryServer()
    over_connection(server, ask("/predict", rows(1.0).tobytes()))
    assert "In numbers" not in page_of(over_connection(server, PAGE)).text


@pytest.mark.parametrize("target", ["/models/m", "/models/m/versions/1"])
def test_links_lead_to_the_right_place_behind_a_proxy_with_a_path(target: str) -> None:
    page = page_of(over_connection(MemoryServer(), ask(target, method="GET")))
    there = [urljoin(f"http://host/prefix{target}", link) for link in page.links]
    assert there == [
        "http://host/prefix/",
        "http://host/prefix/v2/models/m/versions/1/batching",
    ]


def test_the_list_of_models_leads_to_each_page_whatever_its_name() -> None:
    odd = "a <b>&\"'?#% c"
    models = [
        RecordingModel(model_spec(name=odd)),
        *(RecordingModel(model_spec(version=version)) for version in "12"),
    ]
    server = MemoryServer(*models)
    index = page_of(over_connection(server, ask("/", method="GET")))
    links = [link for link in index.links if link.startswith("models/")]
    assert links[1:] == ["models/m/versions/1", "models/m"]
    titles = []
    for link in links:
        answer = over_connection(server, ask(f"/{link}", method="GET"))
        titles.append(re.sub(r"\n.*", "", page_of(answer).text.removeprefix("batcher: ")))
        assert b"<b>" not in answer.body
    assert [odd in titles[0], "1" in titles[1], "2" in titles[2]] == [True, True, True]


def test_a_model_that_is_not_ready_has_a_page_that_says_so_and_nothing_to_measure() -> None:
    server = MemoryServer()
    server.add(RecordingModel(model_spec(name="late")))
    answer = over_connection(server, ask("/models/late", method="GET"))
    page = page_of(answer)
    assert "The model does not serve (loading" in page.text
    assert b"http-equiv" not in answer.body


def test_why_a_model_failed_is_told_to_no_client() -> None:
    server = MemoryServer()
    server.add(RecordingModel(model_spec(name="broken"))).loaded.errback(
        RuntimeError("/secret/path <b>")
    )
    answer = over_connection(server, ask("/models/broken", method="GET"))
    assert "The model does not serve (failed" in page_of(answer).text
    assert b"/secret" not in answer.body


def test_an_unknown_model_or_version_has_none(both: Both) -> None:
    for target in ("/models/other", "/models/m/versions/7"):
        answer = both(MemoryServer(), ask(target, method="GET"))
        assert (answer.status, answer.decoded()["code"]) == (404, "unknown_model")
