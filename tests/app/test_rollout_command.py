"""What `batcher rollout` prints, and how it fails."""

from __future__ import annotations

import json
from email.message import Message
from http.client import BadStatusLine
from io import BytesIO
from typing import Any
from unittest.mock import patch
from urllib.error import HTTPError
from urllib.request import Request

import pytest
from click.testing import CliRunner

from batcher.app.cli import main
from batcher.config.traffic import Canary
from batcher.serving.canaries.trial import Trial, status_of

STATUS = {"model": "m", **status_of(Trial(Canary(version="5"), "5", "3", 0.0), 30.0)}


class Answer(BytesIO):
    """An answer of urllib."""


def run(*arguments: str, answer: Any = STATUS) -> tuple[Any, list[Request]]:
    asked: list[Request] = []

    def urlopen(request: Request, timeout: float) -> Answer:
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return Answer(json.dumps(answer).encode())

    with patch("batcher.app.rollout_command.urlopen", urlopen):
        return CliRunner().invoke(main, ["rollout", *arguments]), asked


def refusal(status: int, body: bytes) -> HTTPError:
    return HTTPError("", status, "", Message(), BytesIO(body))


def test_the_status_is_told_in_words() -> None:
    result, (request,) = run("status", "m", "--url", "http://host:1/")
    assert (request.get_method(), request.full_url) == ("GET", "http://host:1/models/m/rollout")
    assert "model m: version 5 is running against version 3" in result.output
    assert "it gets 1 % of the requests, step 1 of 4" in result.output
    assert "0 of 100 answers, 30 of 600 s" in result.output
    assert "version 5: 0 of 0 answers failed" in result.output


def test_a_version_that_cannot_answer_is_told() -> None:
    result, _ = run("status", "m", answer={**STATUS, "note": "version 5 cannot answer now"})
    assert "\nversion 5 cannot answer now\n" in result.output


@pytest.mark.parametrize("timeout", ["0", "-1", "inf", "soon"])
def test_no_time_to_wait_is_a_mistake_and_not_a_server_that_is_down(timeout: str) -> None:
    result, asked = run("status", "m", "--timeout", timeout)
    assert (result.exit_code, asked) == (2, [])
    assert "--timeout" in result.output


@pytest.mark.parametrize("action", ["promote", "abort"])
def test_actions_are_posted(action: str) -> None:
    result, (request,) = run(action, "a/b")
    assert result.exit_code == 0
    assert request.get_method() == "POST"
    assert request.full_url == f"http://127.0.0.1:8080/models/a%2Fb/rollout/{action}"


def test_programs_read_json() -> None:
    result, _ = run("status", "m", "--json")
    assert json.loads(result.output) == STATUS


def test_a_trial_that_has_not_begun_is_told() -> None:
    result, _ = run("status", "m", answer={"model": "m", "outcome": "waiting"})
    assert result.output == "model m: no version is on trial yet\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (refusal(403, b'{"error": "not you"}'), "Error: 403: not you"),
        (refusal(502, b"<html>"), "Error: 502: <html>"),
        (ConnectionRefusedError("refused"), "is the server running there?"),
        (BadStatusLine("SSH-2.0"), "SSH-2.0: is the server running there?"),
    ],
)
def test_a_failure_tells_why(error: Exception, text: str) -> None:
    result, _ = run("abort", "m", answer=error)
    assert result.exit_code == 1
    assert text in result.output


def test_a_key_and_a_path_before_the_routes_are_sent() -> None:
    result, (request,) = run("abort", "m", "--url", "https://host/ml/", "--api-key", "k3y")
    assert result.exit_code == 0
    assert request.full_url == "https://host/ml/models/m/rollout/abort"
    assert request.get_header("X-api-key") == "k3y"
    assert "X-api-key" not in request.headers  # which are those that a redirect takes along


@pytest.mark.parametrize("answer", [[], {"page": "log in"}, "text", None])
def test_an_answer_of_another_program_is_named(answer: Any) -> None:
    for words in ((), ("--json",)):
        result, _ = run("status", "m", *words, answer=answer)
        assert result.exit_code == 1
        assert "expected the state of a trial; got" in result.output


def test_a_password_in_the_address_is_not_shown() -> None:
    result = CliRunner().invoke(main, ["rollout", "status", "m", "--url", "http://me:s3cr3t@x:y/"])
    assert result.exit_code == 1
    assert "cannot reach http://…@x:y/models/m/rollout" in result.output
    assert "s3cr3t" not in result.output
