"""`batcher rollout`: where the trial of a new version is, and how a person ends it."""

from __future__ import annotations

from json import JSONDecodeError, loads
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import click

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
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Of the server.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for programs.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the answer.")
def rollout_command(action: str, model: str, url: str, as_json: bool, timeout: float) -> None:
    """Show the trial of a new version of MODEL, or end it.

    `promote` sends all requests to the version on trial, `abort` none. The server lets clients do
    so under `model_control: explicit` alone.
    """
    path = f"{url.rstrip('/')}/models/{quote(model, safe='')}/rollout"
    asked = Request(path) if action == "status" else Request(f"{path}/{action}", data=b"")
    text = _answer(asked, timeout)
    if as_json:
        click.echo(text)
        return
    for line in status_lines(loads(text)):
        click.echo(line)


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return what a person reads of the `status` of a trial."""
    if "candidate" not in status:
        return [f"model {status['model']}: no version is on trial yet"]
    shown = {**status, "steps": len(status["steps"]), "outcome": _words(status["outcome"])}
    lines = [line.format(**shown) for line in _LINES]
    for number, counts in status["answers"].items():
        lines.append(f"version {number}: {counts['errors']} of {counts['requests']} answers failed")
    for name, evidence in status["evidence"].items():
        at = status["rolled_back_at"]
        lines.append(f"evidence of {_words(name)}: {evidence:.1f}; {at:.1f} rolls back")
    return lines


def _words(name: str) -> str:
    return name.replace("_", " ")


def _answer(asked: Request, timeout: float) -> str:
    """Return the server's answer; raises ClickException with the reason of another."""
    try:
        with urlopen(asked, timeout=timeout) as answer:
            return str(answer.read().decode())
    except HTTPError as err:
        raise click.ClickException(f"{err.code}: {_reason(err.read())}") from err
    except (OSError, URLError, ValueError) as err:
        raise click.ClickException(
            f"cannot reach {asked.full_url}: {err}: is the server running there?"
        ) from err


def _reason(body: bytes) -> str:
    try:
        return str(loads(body)["error"])
    except (JSONDecodeError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
