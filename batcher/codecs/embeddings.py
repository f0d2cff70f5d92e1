"""OpenAI's form of embeddings: texts or tokens in, vectors and the number of tokens out.

    request   {"model": "minilm", "input": "a text"}
    answer    {"object": "list", "model": "minilm", "data": [{"object": "embedding", "index": 0,
              "embedding": [0.1, …]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}

| member of a request | what it may be |
|---|---|
| `model` | the name of a model that makes embeddings |
| `input` | a text, a list of texts, a list of token ids, or a list of such lists |
| `encoding_format` | `float`, or `base64` for the bytes of the numbers: FP32, little-endian |
| `dimensions` | how many numbers of a vector to keep; what is kept is scaled to length 1 |

Other members, such as `user`, are ignored. Every error of a member begins with its name: by that
the answer says which one is wrong.

**Which models make embeddings** follows from their tensors (`embedder_of`), so that a model needs
no word for it.
"""

from __future__ import annotations

from base64 import b64encode
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.json_text import to_json, with_json
from batcher.codecs.formats.long_lists import LongList
from batcher.core.error_text import brief
from batcher.core.request import InferenceResponse
from batcher.core.spec import FLOATS, Array, ModelSpec, TensorSpec
from batcher.errors import InvalidInput, TooLarge

MEMBERS = ("model", "input", "encoding_format", "dimensions")
"""Members of a request that can be wrong."""

MAX_INPUTS = 2048
"""Most texts of a request, as OpenAI has it."""

MAX_PADDED_IDS = 1 << 21
"""Most token ids of a request, counted as if every list had the length of the longest: 16 MiB."""

MAX_LOOP_VALUES = 1 << 13
"""Most texts, ids and lists of a body that the loop reads: that takes a millisecond at most.

A body of 256 KiB may hold 130,000, which take up to 18 times as long to read, and to let go of.
"""

NO_ID = -1
"""What stands behind the ids of a list that is shorter than the longest of its request."""

_INTEGERS = ("INT32", "INT64")
_ONE_ELEMENT = ((), (1,))
_ACCEPTED = "a text, a list of texts, a list of token ids, or a list of such lists"


class Embedder(NamedTuple):
    """The tensors of a model that makes embeddings.

    Attributes:
        text: the input of texts.
        ids: the input of token ids; None if the model takes none.
        vector: the output of vectors.
        tokens: the output that says how many tokens a text had; None without one.
    """

    text: TensorSpec
    ids: TensorSpec | None
    vector: TensorSpec
    tokens: TensorSpec | None


class Wish(NamedTuple):
    """What a request asks for.

    Attributes:
        model: the model's name.
        texts: the texts; empty ones where token ids came.
        ids: a row of token ids for each text, with NO_ID behind shorter rows; None for texts.
        base64: whether vectors are sent as bytes, in base64.
        dimensions: how many numbers of a vector are sent; 0 for all.
        tokens: how many token ids came.
    """

    model: str
    texts: Array
    ids: Array | None = None
    base64: bool = False
    dimensions: int = 0
    tokens: int = 0

    def without_inputs(self) -> Wish:
        """Return what an answer needs to be written: the inputs belong to the request."""
        return self._replace(texts=np.empty(0, object), ids=None)


def embedder_of(spec: ModelSpec) -> Embedder | None:
    """Return what makes a model of `spec` an embedder; None if it is none.

    An embedder has one input of texts, all else of its inputs can be left out, and exactly one
    output is a vector of floats. Token ids go to an optional input of whole numbers with one free
    axis; an output `tokens`, one whole number a text, says how many tokens a text had. Whole
    numbers are INT32 or INT64.
    """
    texts = [tensor for tensor in spec.required if _is_text(tensor)]
    vectors = [tensor for tensor in spec.outputs if _is_vector(tensor)]
    if len(texts) != 1 or len(spec.required) != 1 or len(vectors) != 1:
        return None
    ids = [tensor for tensor in spec.inputs if tensor.is_optional and _holds_ids(tensor)]
    counts = [tensor for tensor in spec.outputs if tensor.name == "tokens" and _is_count(tensor)]
    return Embedder(
        texts[0], ids[0] if len(ids) == 1 else None, vectors[0], counts[0] if counts else None
    )


def _is_text(tensor: TensorSpec) -> bool:
    return tensor.datatype.name == "BYTES" and tensor.shape in _ONE_ELEMENT


def _is_vector(tensor: TensorSpec) -> bool:
    is_uneven = tensor.unpads or tensor.is_ragged
    is_float = tensor.datatype.name in FLOATS
    return is_float and len(tensor.shape) == 1 and tensor.labels is None and not is_uneven


def _holds_ids(tensor: TensorSpec) -> bool:
    return tensor.datatype.name in _INTEGERS and tensor.shape == (-1,) and not tensor.is_filled


def _is_count(tensor: TensorSpec) -> bool:
    return tensor.datatype.name in _INTEGERS and tensor.shape in _ONE_ELEMENT


def has_many_values(body: Buffer) -> bool:
    """Return whether `body` may hold more than MAX_LOOP_VALUES. Any thread.

    Commas and brackets within texts count, too: such a body is only read elsewhere.
    """
    if len(body) <= MAX_LOOP_VALUES:
        return False
    characters = np.frombuffer(body, np.uint8)
    return sum([int((characters == each).sum()) for each in b",[{"]) > MAX_LOOP_VALUES


def listed_model(name: str) -> dict[str, Any]:
    """Return what OpenAI's form says of the model called `name`; nobody knows when it was made."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "batcher"}


def decode(body: Buffer) -> Wish:
    """Return what the request in `body` asks for.

    Raises:
        DecodingError: the body is not JSON.
        InvalidInput: a member is wrong; the message begins with its name.
        TooLarge: the token ids of the request are too many.
    """
    return with_json(body, wish_of)


def wish_of(document: Any) -> Wish:
    """Return what `document` asks for; raises as `decode`."""
    if not isinstance(document, dict):
        raise InvalidInput(
            f"body: expected an object with `model` and `input`; got {type(document).__name__}"
        )
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidInput(f"model: expected the name of a model; got {_got(document, 'model')}")
    given = document.get("encoding_format")
    encoding = "float" if given is None else given
    if encoding not in ("float", "base64"):
        raise InvalidInput(f"encoding_format: expected 'float' or 'base64'; got {brief(encoding)}")
    dimensions = _dimensions(document.get("dimensions"))
    inputs = _inputs(document)
    texts, ids = inputs.arrays()
    return Wish(model, texts, ids, encoding == "base64", dimensions, inputs.tokens)


def _got(document: dict[str, Any], name: str) -> str:
    if name not in document:
        return "none"
    value = document[name]
    return "a long list" if isinstance(value, LongList) else brief(value)


def _dimensions(value: Any) -> int:
    if value is None:
        return 0
    if type(value) is not int or value < 1:
        raise InvalidInput(f"dimensions: expected a whole number of at least 1; got {brief(value)}")
    return value


def _inputs(document: dict[str, Any]) -> _Inputs:
    """Return the texts of a request, or its token ids."""
    value, inputs = document.get("input"), _Inputs()
    if isinstance(value, str):
        inputs.add([value])
    elif isinstance(value, list):
        inputs.add(value)
    elif isinstance(value, LongList):
        for piece in value.pieces():
            inputs.add(piece)
    else:
        raise InvalidInput(f"input: expected {_ACCEPTED}; got {_got(document, 'input')}")
    return inputs


class _Inputs:
    """Collects the inputs of one request, of which the texts or ids come in pieces.

    Attributes:
        tokens: how many token ids came.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._texts: list[bytes] = []
        self._ids: list[Array] = []  # of all lists, one behind the other
        self._lengths: list[int] = []  # of each list of ids
        self._single = False  # whether ids stand in `input` itself

    def add(self, piece: list[Any] | LongList) -> None:
        """Add elements of `input`, or one long element."""
        elements: list[Any] = [piece] if isinstance(piece, LongList) else piece
        kinds = set(map(type, elements))
        if kinds == {int}:
            self._single = True
            self._add_ids(elements)
        elif len(self._texts) + len(self._lengths) + len(elements) > MAX_INPUTS:
            raise InvalidInput(f"input: expected at most {MAX_INPUTS} texts in a request; got more")
        elif kinds <= {str}:
            self._texts += [text.encode() for text in elements]
        elif all(issubclass(kind, list | LongList) for kind in kinds):
            self._add_lists(elements)
        else:
            names = sorted({kind.__name__ for kind in kinds})
            raise InvalidInput(f"input: expected {_ACCEPTED}; got a list of {', '.join(names)}")

    def arrays(self) -> tuple[Array, Array | None]:
        """Return the texts and the ids, as Wish has them."""
        if bool(self._texts) + bool(self._lengths) + self._single != 1:
            got = "a list of several of these" if self._texts or self._ids else "an empty list"
            raise InvalidInput(f"input: expected {_ACCEPTED}; got {got}")
        if b"" in self._texts:
            raise InvalidInput("input: expected texts that are not empty; got an empty one")
        if self._texts:
            return _objects(self._texts), None
        lengths = self._lengths or [self.tokens]
        return _objects([b""] * len(lengths)), _padded(self._ids, lengths)

    def _add_lists(self, elements: list[Any]) -> None:
        """Add lists of ids."""
        if any(isinstance(element, LongList) for element in elements):
            for element in elements:
                self._add_list(element)
            return
        lengths = list(map(len, elements))
        if not all(lengths):
            raise InvalidInput("input: expected lists of token ids, none empty; got an empty list")
        # All lists at once: to look at each id by itself takes much longer.
        self._add_ids(list(chain.from_iterable(elements)))
        self._lengths += lengths

    def _add_list(self, element: list[Any] | LongList) -> None:
        """Add one list of ids beside long ones."""
        if not isinstance(element, LongList):
            self._add_lists([element])
            return
        before = self.tokens
        for piece in element.pieces():
            self._add_ids([None] if isinstance(piece, LongList) else piece)
        self._lengths.append(self.tokens - before)

    def _add_ids(self, values: list[Any]) -> None:
        """Add ids to the list that they belong to."""
        self._ids.append(_ids(values))
        self.tokens += len(values)
        _check_ids(self.tokens)


def _ids(values: list[Any]) -> Array:
    """Return token ids as an array."""
    wrong = set(map(type, values)) - {int}
    if wrong:
        names = ", ".join(sorted(kind.__name__ for kind in wrong))
        raise InvalidInput(f"input: expected token ids, which are whole numbers; got {names}")
    try:
        ids = np.array(values, np.int64)
    except OverflowError:
        raise InvalidInput("input: expected token ids; got a number of more than 63 bits") from None
    if ids.size and int(ids.min()) < 0:
        raise InvalidInput(f"input: expected token ids of 0 and above; got {ids.min()}")
    return ids


def _check_ids(count: int) -> None:
    """Raise TooLarge if `count` ids, padded, are too many for a request."""
    if count > MAX_PADDED_IDS:
        raise TooLarge(
            f"input: expected at most {MAX_PADDED_IDS} token ids in a request, counted as if every "
            f"list had the length of the longest; got {count} or more: send long lists in requests "
            "of their own"
        )


def _padded(ids: list[Array], lengths: list[int]) -> Array:
    """Return `ids`, those of lists of `lengths` one behind the other, as a row for each list."""
    longest = max(lengths)
    _check_ids(len(lengths) * longest)
    padded: Array = np.full((len(lengths), longest), NO_ID, np.int64)
    # A step of Python for each list would take a millisecond for 2,048 of them.
    padded[np.arange(longest) < np.array(lengths)[:, np.newaxis]] = np.concatenate(ids)
    return padded


def _objects(values: list[bytes]) -> Array:
    array: Array = np.empty(len(values), object)
    array[:] = values
    return array


def inputs_for(wish: Wish, embedder: Embedder) -> dict[str, Array]:
    """Return the inputs of a model, made of `wish`.

    Raises:
        InvalidInput: vectors of the model have fewer numbers than are wished for; or the model
            takes no token ids, or none as large.
    """
    width = embedder.vector.shape[0]
    if wish.dimensions > width >= 0:
        raise InvalidInput(f"dimensions: expected at most {width}; got {wish.dimensions}")
    texts = wish.texts if embedder.text.shape == () else wish.texts[:, np.newaxis]
    if wish.ids is None:
        return {embedder.text.name: texts}
    if embedder.ids is None:
        raise InvalidInput("input: expected texts, since the model takes no token ids; got ids")
    dtype = embedder.ids.datatype.numpy
    if int(wish.ids.max()) > np.iinfo(dtype).max:
        raise InvalidInput(f"input: expected token ids of {dtype}; got {wish.ids.max()}")
    return {embedder.text.name: texts, embedder.ids.name: wish.ids.astype(dtype, copy=False)}


def encode(response: InferenceResponse, wish: Wish, embedder: Embedder) -> bytes:
    """Return the answer to `wish`.

    Raises:
        InvalidInput: the vectors have fewer numbers than are wished for.
    """
    vector = embedder.vector
    vectors = plain_numbers(response.outputs[vector.name], vector.datatype.name)
    vectors = _shortened(np.ascontiguousarray(vectors, np.float32), wish.dimensions)
    tokens = _tokens(response, wish, embedder)
    listed: Any = map(_in_base64, vectors) if wish.base64 else vectors
    return to_json(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": value}
                for index, value in enumerate(listed)
            ],
            "model": wish.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _in_base64(vector: Array) -> str:
    return b64encode(vector.astype("<f4", copy=False).tobytes()).decode()


def _shortened(vectors: Array, dimensions: int) -> Array:
    """Return the first `dimensions` numbers of each vector, scaled to length 1; 0 keeps all."""
    width = vectors.shape[1]
    if dimensions in (0, width):
        return vectors
    if dimensions > width:
        raise InvalidInput(f"dimensions: expected at most {width}; got {dimensions}")
    kept = vectors[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.ascontiguousarray(kept / np.where(lengths > 0, lengths, 1), np.float32)


def _tokens(response: InferenceResponse, wish: Wish, embedder: Embedder) -> int:
    """Return how many tokens the texts had: as the model says, else as came; 0 if nobody knows."""
    if embedder.tokens is not None:
        return int(response.outputs[embedder.tokens.name].sum())
    return wish.tokens
