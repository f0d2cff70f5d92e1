"""Requests that name files in place of inputs: the files are fetched, and then the request is read.

    body of the native route --> read once: which files? --.
    head of /v2, message of gRPC: it says which files -----'--> fetch --> read with them --> infer

Fetching has the request's deadline, and ends when its client leaves. Nothing of this runs on the
loop but the bookkeeping: bodies are read on the CPU pool, long texts in the process for codecs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer, Content, Files
from batcher.codecs.content_coding import HEAVY_BYTES, Body, plain_body
from batcher.codecs.formats.references import Unfetched, is_long_text
from batcher.codecs.heavy import decode_with_files
from batcher.core.digests import digest_of
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.serving.references.fetcher import InputFetcher
from batcher.serving.servable import Servable

Inputs = Mapping[str, Array]
Decode = Callable[..., Inputs]
"""A function of a module: from `Files`, and the arguments that come with it, to inputs."""

About = tuple[str, Buffer] | None
"""All that says what inputs are made of files, besides the files; None where nothing is kept."""


def infer_body(
    servable: Servable,
    fetcher: InputFetcher,
    body: Body,
    content: Content,
    parameters: Parameters,
) -> Deferred[InferenceResponse]:
    """Answer a body that may name files; fails and raises as `Servable.infer_decoded`, or `fetch`.

    `content` describes the body. Reactor thread.
    """
    parameters = servable.timed(parameters)
    arguments = (body, content, servable.spec)
    unread = Files(None, fetcher.max_image_pixels)
    read = partial(_inputs_or_addresses, unread, *arguments)
    found = servable.run_on_pool(len(body), read, parameters)

    def go_on(found: Inputs | list[str]) -> Deferred[InferenceResponse]:
        if not isinstance(found, list):
            return servable.infer_by_successor(found, parameters)
        about = None if servable.decoded is None else (repr(content), plain_body(body))
        wanted = (found, len(body), parameters, about, decode_with_files)
        return infer_files(servable, fetcher, *wanted, *arguments)

    return found.addCallback(go_on)


def _inputs_or_addresses(files: Files, body: Body, *arguments: Any) -> Inputs | list[str]:
    """Return the inputs in `body`, or the addresses of the files in it. The pool's thread."""
    try:
        return decode_with_files(files, body, *arguments)
    except Unfetched as err:
        return err.addresses


def infer_files(
    servable: Servable,
    fetcher: InputFetcher,
    addresses: Sequence[str],
    nbytes: int,
    parameters: Parameters,
    about: About,
    decode: Decode,
    *arguments: Any,
) -> Deferred[InferenceResponse]:
    """Answer a request of `nbytes` bytes, with the files at `addresses`, one or more.

    `decode(files, *arguments)` makes the inputs, which are kept where the settings say so: they are
    the same for the same `about` and files. Fails and raises as `infer_body`. Reactor thread.
    """
    parameters = servable.timed(parameters)
    assert parameters.deadline is not None, "`timed` has set it"
    fetched = fetcher.fetch(addresses, parameters.deadline, parameters.client, nbytes)

    def go_on(contents: dict[str, bytes]) -> Deferred[InferenceResponse]:
        digest = None if about is None else partial(digest_of, *about, contents)
        beside = nbytes, parameters, digest, decode
        return _infer(servable, Files(contents, fetcher.max_image_pixels), *beside, *arguments)

    return fetched.addCallback(go_on)


def _infer(
    servable: Servable,
    files: Files,
    nbytes: int,
    parameters: Parameters,
    digest: Callable[[], bytes] | None,
    decode: Decode,
    *arguments: Any,
) -> Deferred[InferenceResponse]:
    """Answer a request whose `files` are there."""
    contents = (files.contents or {}).values()
    together = nbytes + sum(map(len, contents))
    if any(is_long_text(content, HEAVY_BYTES) for content in contents):
        return servable.infer_heavy(together, parameters, digest, decode, files, *arguments)
    make = partial(decode, files, *arguments)
    return servable.infer_decoded(together, make, parameters, digest)
