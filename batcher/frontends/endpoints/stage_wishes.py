"""What a request says for the stages behind the front, whichever protocol has brought it."""

from __future__ import annotations

import re
from typing import NamedTuple

from batcher.core.error_text import brief
from batcher.core.request import Parameters
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import CallHead
from batcher.serving.servable import Servable

MAX_ONCE_CHARS = 255
"""Longest key by which a client repeats a request: some 40 are enough."""

_BARE = re.compile(r"[!#-+\--\[\]-~]+")
_ESCAPED = re.compile(r"\\(.)")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')


class StageWishes(NamedTuple):
    """What stages read of a request; each empty where no stage reads it.

    Attributes:
        key: API key whose quota the request is charged to.
        route: text by which the version is chosen.
        fresh: whether the model is to run in any case, whatever answers are kept.
        once: text by which the client repeats the request.
    """

    key: str = ""
    route: str = ""
    fresh: bool = False
    once: str = ""

    def parameters(
        self, deadline: float | None = None, level: int = 0, client: str = ""
    ) -> Parameters:
        """Return the parameters of a request with these wishes; the rest is as in Parameters."""
        return Parameters(deadline, level, self.key, client, self.route, self.fresh, self.once)


NO_WISHES = StageWishes()


def wishes_of(head: CallHead, servable: Servable) -> StageWishes:
    """Return what the stages of `servable` read of `head`."""
    return StageWishes(
        head.key() if servable.reads_key else "",
        head.route() if servable.picks_version else "",
        servable.reads_freshness and head.fresh(),
        _once_of(head) if servable.reads_once else "",
    )


def _once_of(head: CallHead) -> str:
    version = head.arguments.get("version") or head.arguments.get("label", "")
    return once_key(head.header(b"idempotency-key"), version)


def once_key(text: str, version: str = "") -> str:
    """Return the key that an `Idempotency-Key` of `text` holds; empty without one.

    The same key with another `version`, the number or label that the request names, is another one.
    Not so with the version that answers: a reload may come between a request and its repetition.
    Raises InvalidInput.
    """
    key = _key_in(text.strip(" \t"))
    return f"{key}\n{version}" if key and version else key


def _key_in(text: str) -> str:
    """Return the key that is written in `text`.

    It is a string in quotes, as structured fields have them, or the same without quotes. Raises
    InvalidInput.
    """
    if not text:
        return ""
    quoted = _QUOTED.fullmatch(text) if len(text) <= MAX_ONCE_CHARS else None
    if quoted:
        return _ESCAPED.sub(r"\1", quoted[1])
    if len(text) > MAX_ONCE_CHARS or not _BARE.fullmatch(text):
        raise InvalidInput(
            f"Idempotency-Key: expected one key of at most {MAX_ONCE_CHARS} visible characters, "
            f"with quotes or without; got {brief(text, 60)}"
        )
    return text
