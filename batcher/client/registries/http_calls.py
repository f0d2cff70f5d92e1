"""Calls to a registry that speaks HTTP: by the client's own connections, to the host that answers.

A call may run twice: to ask, to announce and to withdraw again change nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from batcher.client.attempts import Attempts, checked_options
from batcher.client.blocking_calls import BlockingCalls, BlockingSetup
from batcher.client.errors import ClientFailure, InferenceFailed, MalformedAnswer, NotConnected
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse, failure_of
from batcher.client.retrying import RetryPolicy
from batcher.codecs.formats.json_text import from_json, to_json
from batcher.core.registry_address import RegistryAddress

TIMEOUT_S = 3.0
"""Longest time of a call to one host: a registry in the same network takes milliseconds."""

MAX_ANSWER_BYTES = 32 << 20
"""Longest answer of a host: more than all that a directory of ours lists."""

_ONCE = RetryPolicy(0)  # at one host; the next one is asked at once


class _Question(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def request(self, seconds_left: float) -> HttpRequest:
        return HttpRequest(*self)

    def read(self, response: HttpResponse) -> Any:
        """Return the JSON of an answer, None for an empty one.

        What is packed is not unpacked, since it was asked for plain: a megabyte may be a gigabyte.
        """
        failure = failure_of(response, time.time())
        if failure is not None:
            raise failure
        if response.status >= 300:  # such as that of a proxy which wants a login
            raise MalformedAnswer(f"expected status 200 to 299; got {response.status}")
        return from_json(response.body) if response.body.strip() else None


def _question(method: str, path: str, headers: Mapping[str, str], document: object) -> _Question:
    return _Question(method, path, headers, b"" if document is None else to_json(document))


class HttpCalls:
    """Calls to the hosts of one registry. One thread at a time."""

    def __init__(self, address: RegistryAddress, headers: Mapping[str, str]) -> None:
        """Send `headers` with each call."""
        self._headers = headers
        scheme = "https" if address.has_tls else "http"
        self._hosts = [_calls(scheme, host, port) for host, port in address.hosts]

    def ask(
        self,
        method: str,
        path: str,
        document: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the JSON of an answer, None for an empty one; `document` is sent as JSON.

        Raises:
            BatcherError: the answer is no JSON.
            ClientFailure: no host answered, or the answer is an error.
        """
        question = _question(method, path, {**self._headers, **(headers or {})}, document)
        failure: ClientFailure = NotConnected("expected a host; got none")
        for calls in list(self._hosts):
            attempts = Attempts(question, _ONCE, TIMEOUT_S, time.monotonic())
            try:
                return question.read(calls.sockets.exchange(attempts))
            except ClientFailure as err:
                if isinstance(err, InferenceFailed) and err.status < 500:
                    raise  # the next host would say the same
                failure = err
                self._hosts.append(self._hosts.pop(0))  # next time the others come first
        raise failure

    def close(self) -> None:
        """End the connections."""
        for calls in self._hosts:
            calls.close()


def _calls(scheme: str, host: str, port: int) -> BlockingCalls:
    name = f"[{host}]" if ":" in host else host
    setup = BlockingSetup(1, None, None, None, time.monotonic, time.sleep)
    options = checked_options(f"{scheme}://{name}:{port}", TIMEOUT_S, 0)
    return setup.calls(replace(options, max_answer_bytes=MAX_ANSWER_BYTES))
