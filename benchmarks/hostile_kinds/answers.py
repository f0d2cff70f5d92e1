"""Small requests for large answers, in each form, read at once, slowly or never."""

from __future__ import annotations

from functools import partial

from benchmarks.hostile_kinds.kind import Attack, Kind, Target
from benchmarks.hostile_kinds.texts import JSON
from benchmarks.hostile_kinds.wire import exchange, request, sending

ROWS = 64
"""Rows of one request: with the models `large` and `words` 64 MiB and four million texts."""

SLOW_S = 0.02
"""Seconds between two reads of 256 KiB: 13 MiB/s, and 64 MiB of JSON take some 12 s."""

OCTETS = "application/octet-stream"
_VALUES = ",".join(["[0]"] * ROWS)
_COLUMN = ",".join(["0"] * ROWS)


def asking(model: str, accept: str, coding: str = "") -> bytes:
    """Return a request on the native route."""
    fields = {"Accept": accept, "X-Timeout-Ms": "60000"}
    if coding:
        fields["Accept-Encoding"] = coding
    if model == "words" or model == "large":
        body, media_type = f'{{"inputs":{{"x":[{_VALUES}]}}}}'.encode(), JSON
    return request(f"/models/{model}/predict", body, media_type, fields=fields)


def asking_oip(model: str, binary: bool, coding: str = "") -> bytes:
    """Return a request of the Open Inference Protocol."""
    asked = ',"parameters":{"binary_data_output":true}' if binary else ""
    tensor = f'{{"name":"x","datatype":"FP32","shape":[{ROWS},1],"data":[{_COLUMN}]}}'
    body = f'{{"inputs":[{tensor}]{asked}}}'.encode()
    fields = {"Accept-Encoding": coding} if coding else {}
    return request(f"/v2/models/{model}/infer", body, JSON, fields=fields)


def asking_tf(model: str) -> bytes:
    """Return a request in TensorFlow Serving's form."""
    return request(f"/v1/models/{model}:predict", f'{{"instances":[{_VALUES}]}}'.encode(), JSON)


def reading_slowly(data: bytes) -> Attack:
    """Return an attack that sends `data` and reads the answer little by little."""

    def attack(target: Target) -> str:
        return exchange(target, [data], pause_s=SLOW_S)

    return attack


def _kind(name: str, data: bytes, clients: int = 1) -> Kind:
    return Kind(f"answer_{name}", partial(sending, data), clients)


ANSWER_KINDS = (
    _kind("json", asking("large", JSON)),
    _kind("csv", asking("large", "text/csv")),
    _kind("msgpack", asking("large", "application/msgpack")),
    _kind("npy", asking("large", "application/x-npy")),
    _kind("octets", asking("large", OCTETS)),
    _kind("json gzip", asking("large", JSON, "gzip")),
    _kind("octets gzip", asking("large", OCTETS, "gzip")),
    _kind("json deflate", asking("large", JSON, "deflate")),
    _kind("oip", asking_oip("large", binary=False)),
    _kind("oip gzip", asking_oip("large", binary=False, coding="gzip")),
    _kind("oip_binary", asking_oip("large", binary=True)),
    _kind("tf", asking_tf("large")),
    _kind("words json", asking("words", JSON)),
    _kind("words csv", asking("words", "text/csv")),
    _kind("words msgpack", asking("words", "application/msgpack")),
    _kind("words oip", asking_oip("words", binary=False)),
    _kind("words oip_binary", asking_oip("words", binary=True)),
    _kind("json 4 clients", asking("large", JSON), clients=4),
    _kind("csv 4 clients", asking("large", "text/csv"), clients=4),
    Kind("slow_json", partial(reading_slowly, asking("large", JSON)), clients=4),
    Kind("slow_octets", partial(reading_slowly, asking("large", OCTETS)), clients=8),
)
