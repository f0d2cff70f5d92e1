"""`batcher predict`: one file is posted, and the answer or the error is printed.

On urllib, not on `batcher.client`: the client speaks the Open Inference Protocol alone, which
carries no files, and needs the extra `client`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import click

from batcher.codecs.file_names import media_type_of_file


def post_file(url: str, file: Path, timeout_s: float) -> bool:
    """Post `file` to `url`, print the answer or the error; return whether it was an answer."""
    headers = {"Content-Type": media_type_of_file(file), "Accept": "application/json"}
    try:
        with urlopen(Request(url, file.read_bytes(), headers), timeout=timeout_s) as answer:
            click.echo(answer.read().decode())
            return True
    except HTTPError as err:
        click.echo(f"{file}: {err.code}: {err.read().decode('utf-8', 'replace')}", err=True)
    except URLError as err:
        click.echo(f"{file}: {_unreached(url, err.reason)}", err=True)
    except (OSError, ValueError) as err:
        click.echo(f"{file}: {err}", err=True)
    return False


def _unreached(url: str, reason: object) -> str:
    """Return why nobody was reached at `url`, in words."""
    if isinstance(reason, OSError):
        why = reason.strerror or reason
        return f"cannot connect to {url}: {why}: is the server running there?"
    return f"expected a URL such as http://127.0.0.1:8080/predict; got {url}: {reason}"
