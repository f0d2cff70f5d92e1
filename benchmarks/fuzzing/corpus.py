"""Right requests of HTTP in every format: what the mutator begins with."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.hostile_kinds.binaries import FORM, part
from benchmarks.hostile_kinds.pictures import png

MODELS = ("probe", "floats", "texts", "table", "pictures", "scenes")
"""Models of the hostile clients' repository that are asked; those of large answers are not."""

JSON = "application/json"


class Sample(NamedTuple):
    """A right request, in the parts that are mutated each for itself.

    Attributes:
        method: of HTTP.
        path: that is asked for.
        fields: further lines of the head.
        body: none if empty.
    """

    method: str
    path: str
    fields: tuple[str, ...]
    body: bytes

    def head(self, length: int | None) -> bytes:
        """Return the head for a body of `length` bytes; None for a body in chunks."""
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: h", framing, *self.fields, "", ""]
        return "\r\n".join(lines).encode("latin-1")


def samples() -> list[Sample]:
    """Return all right requests."""
    return [
        *(Sample("GET", path, (), b"") for path in PAGES),
        *(Sample("OPTIONS", path, ("Origin: http://a",), b"") for path in ("*", "/predict")),
        Sample("POST", "/v2/repository/index", (), b"{}"),
        *(_post(*body) for body in _bodies()),
        *(_coded(*body) for body in _bodies()),
    ]


PAGES = (
    *("/", "/livez", "/readyz", "/readyz?deep=1", "/metrics", "/docs", "/openapi.json", "/v2"),
    *("/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/probe"),
    *("/v2/models/probe/versions/1", "/v2/models/probe/config", "/v2/models/probe/ready"),
    *("/v2/models/probe/stats", "/v2/models/probe/batching", "/v1/models/floats"),
    *("/v1/models/floats/metadata", "/nothing/here"),
)


def _post(path: str, media_type: str, body: bytes, *fields: str) -> Sample:
    return Sample("POST", path, (f"Content-Type: {media_type}", *fields), body)


def _coded(path: str, media_type: str, body: bytes, *fields: str) -> Sample:
    odd = len(body) % 2
    coding, packed = ("gzip", gzip.compress(body)) if odd else ("deflate", zlib.compress(body))
    return _post(path, media_type, packed, f"Content-Encoding: {coding}", *fields)


def _bodies() -> Iterator[tuple[str, ...]]:
    """Yield path, media type, body and further fields of each posted sample."""
    yield from _native()
    yield from _oip()
    yield from _pictures()


def _native() -> Iterator[tuple[str, ...]]:
    floats, texts = "/models/floats/predict", "/models/texts/versions/1/predict"
    file = BytesIO()
    np.save(file, np.arange(12, dtype=np.float32).reshape(3, 4))
    accepts = ("Accept: text/csv", "X-Request-Id: one", "X-Timing: 1")
    yield floats, "application/octet-stream", bytes(64), "X-Timeout-Ms: 20000"
    yield floats, JSON, b'{"inputs": {"x": [[1, 2.5, -3e2], [4, 5, 6]]}}', *accepts
    yield floats, JSON, b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', "X-Priority: bulk"
    yield texts, JSON, '{"inputs": {"x": [["a", "\u00e9\\u0000"], ["", "b"]]}}'.encode()
    yield floats, "text/csv; header=absent", b"1,2,3\n4,5,6\n", "Accept: application/msgpack"
    yield texts, "text/csv", b'"a ""b""",c\nd,"e\nf"\n', "Accept: application/json;q=0.5, */*"
    yield "/models/table/predict", "text/csv", b"a,b,c,d\n1,2,x,true\n3.5,4,y,0\n"
    yield floats, "application/x-npy", file.getvalue(), "Accept-Encoding: gzip"
    array = b"\x85\xa2nd\xc3\xa4type\xa3<f4\xa4kind\xa0\xa5shape\x92\x02\x02\xa4data\xc4\x10"
    yield floats, "application/msgpack", b"\x81\xa6inputs\x81\xa1x" + array + bytes(16)
    yield floats, "application/msgpack", b"\x81\xa6inputs\x81\xa1x\x92\x92\1\2\x92\3\xca" + bytes(4)


def _oip() -> Iterator[tuple[str, ...]]:
    floats, texts = "/v2/models/floats/infer", "/v2/models/texts/versions/1/infer"
    data = '{"id": "7", "inputs": [{"name": "x", "datatype": "%s", "shape": [2, 2], "data": %s}]%s}'
    asked = ', "outputs": [{"name": "y", "parameters": {"binary_data": true}}]'
    timed = ', "parameters": {"timeout": 9000000, "priority": 1, "binary_data_output": true}'
    yield floats, JSON, (data % ("FP32", "[1, 2, 3, 4]", asked)).encode()
    yield floats, JSON, (data % ("FP32", "[[1, 2], [3, 4]]", timed)).encode()
    yield texts, JSON, (data % ("BYTES", '["a", "b", "c", "d"]', "")).encode()
    for path, kind, raw in (
        (floats, "FP32", bytes(16)),
        (texts, "BYTES", b"".join(struct.pack("<I", size) + b"a" * size for size in range(4))),
    ):
        head = data % (kind, "[]", "")
        head = head.replace('"data": []', f'"parameters": {{"binary_data_size": {len(raw)}}}')
        length = f"Inference-Header-Content-Length: {len(head)}"
        yield path, "application/octet-stream", head.encode() + raw, length
    yield "/v1/models/floats:predict", JSON, b'{"instances": [[1, 2], [3, 4]]}'
    yield "/v1/models/floats/versions/1:predict", JSON, b'{"inputs": {"x": [[1, 2]]}}'
    yield "/v1/models/texts:predict", JSON, b'{"instances": [["a", {"b64": "YWI="}]]}'


def _pictures() -> Iterator[tuple[str, ...]]:
    path, scenes = "/models/pictures/predict", "/models/scenes/predict"
    noise = Image.effect_noise((16, 12), 50)
    for form in ("PNG", "JPEG", "WEBP", "BMP"):
        file = BytesIO()
        noise.save(file, form)
        yield path, f"image/{form.lower()}", file.getvalue(), f"Accept: {JSON}"
    small = png(2)
    form = part(small, head=b"Content-Type: image/png\r\n") + part(small) + b"--b--\r\n"
    yield path, FORM, form
    yield scenes, FORM, form
