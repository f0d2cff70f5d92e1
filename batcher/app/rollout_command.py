"""`batcher rollout`: where the trial of a new version is, and how a person ends it."""

from __future__ import annotations

from http.client import HTTPException
from json import JSONDecodeError, loads
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import click

from batcher.serving.repository.stores.secrets import without_secrets

_LINES = (
    "model {model}: version {candidate} is {outcome} against version {stable}",
    "it gets {percent:g} % of the requests, step {step} of {steps}",
    "{reason}",
    "in this step: {answers_in_step} of {min_requests} answers, {seconds_in_step:.0f} of "
    "{every_s:.0f} s",
)


@click.command(name="rollout")
@click.argument("action", type=click.Choice(["status", "promote", "abort"]))
@click.argument("model")
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Of the server; a path before its own routes is part of it.",
)
@click.option(
    "--api-key",
    envvar="BATCHER_API_KEY",
    default="",
    help="What a server, or a proxy, knows you by.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for programs.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001, max=86_400.0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
def rollout_command(
    action: str, model: str, url: str, api_key: str, as_json: bool, timeout: float
) -> None:
    """Show the trial of a new version of MODEL, or end it.

    `promote` sends all requests to the version on trial, `abort` none. The server lets clients do
    so under `model_control: explicit` alone. SSL_CERT_FILE names certificates of one's own.
    """
    path = f"{url.rstrip('/')}/models/{quote(model, safe='')}/rollout"
    keys = {"X-API-Key": api_key} if api_key else {}
    text = _answer(path, None if action == "status" else action, keys, timeout)
    lines = _read(text, path)
    for line in [text] if as_json else lines:
        click.echo(line)


def _read(text: str, path: str) -> list[str]:
    """Return what a person reads of the answer `text`; raises ClickException: it is no status."""
    try:
        return status_lines(loads(text))
    except (JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as err:
        raise click.ClickException(
            f"{without_secrets(path)}: expected the state of a trial; got {text[:200]!r}: is it "
            "the address of a batcher server?"
        ) from err


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return what a person reads of the `status` of a trial."""
    if "candidate" not in status:
        return [f"model {status['model']}: no version is on trial yet"]
    shown = {**status, "steps": len(status["steps"]), "outcome": _words(status["outcome"])}
    lines = [line.format(**shown) for line in _LINES]
    if status.get("note"):
        lines.append(status["note"])
    for number, counts in status["answers"].items():
        lines.append(f"version {number}: {counts['errors']} of {counts['requests']} answers failed")
    for name, evidence in status["evidence"].items():
        at = status["rolled_back_at"]
        lines.append(f"evidence of {_words(name)}: {evidence:.1f}; {at:.1f} rolls back")
    return lines


def _words(name: str) -> str:
    return name.replace("_", " ")


def _answer(path: str, action: str | None, headers: dict[str, str], timeout: float) -> str:
    """Return the server's answer; raises ClickException with the reason of another."""
    url, body = (path, None) if action is None else (f"{path}/{action}", b"")
    try:
        asked = Request(url, body)
        for name, value in headers.items():  # a key is for this host, wherever it may send us
            asked.add_unredirected_header(name.capitalize(), value)
        with urlopen(asked, timeout=timeout) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except HTTPError as err:
        raise click.ClickException(f"{err.code}: {_reason(err.read())}") from err
    except (OSError, HTTPException, ValueError) as err:
        raise click.ClickException(
            without_secrets(f"cannot reach {url}: {err}: is the server running there?")
        ) from err


def _reason(body: bytes) -> str:
    try:
        return str(loads(body)["error"])
    except (JSONDecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
