"""Every format of the native route, over both stacks: the same picture, the same scores."""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from PIL import Image

from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.codecs.format_table import TEXT
from batcher.core.spec import Array, ImageSpec, Labels
from tests.support.http import MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, tensor

Both = Callable[[MemoryServer, bytes], Answer]

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
ROWS = (PIXELS.astype("<f4") / np.float32(255)).reshape(1, 1, 8, 8)
NAMES = ("top", "bottom")


def halves(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the share of ink in the upper and in the lower half of each picture."""
    image = inputs["image"]
    both = np.stack(
        [image[:, :, :4].sum(axis=(1, 2, 3)), image[:, :, 4:].sum(axis=(1, 2, 3))], axis=1
    )
    return {"scores": (both / both.sum(axis=1, keepdims=True)).astype("<f4")}


def picture_model(name: str = "m") -> RecordingModel:
    image = tensor("image", shape=(1, 8, 8), image=ImageSpec("L", 8, 8))
    scores = tensor("scores", shape=(2,), labels=Labels(NAMES))
    return RecordingModel(model_spec((image,), (scores,), name=name), halves)


SCORES = halves({"image": ROWS})["scores"]


def picture(kind: str, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def npy(array: Array) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def multipart(*files: bytes) -> bytes:
    parts = [
        b'--frontier\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n%b\r\n" % data
        for data in files
    ]
    return b"".join(parts) + b"--frontier--\r\n"


BODIES = {
    "application/octet-stream": ROWS.tobytes(),
    "application/json": json.dumps({"inputs": {"image": ROWS.tolist()}}).encode(),
    "application/json; charset=utf-8": json.dumps({"instances": ROWS.tolist()}).encode(),
    "application/json; pictures=base64": json.dumps(
        {"inputs": {"image": {"b64": b64encode(picture("PNG")).decode()}}}
    ).encode(),
    "text/json": json.dumps({"instances": [{"image": ROWS[0].tolist()}]}).encode(),
    "application/msgpack": msgpack.packb({"inputs": {"image": ROWS}}, default=msgpack_numpy.encode),
    "application/x-msgpack": msgpack.packb({"instances": ROWS.tolist()}),
    "application/x-npy": npy(ROWS),
    "text/csv": ",".join(map(repr, ROWS.ravel().tolist())).encode(),
    "image/png": picture("PNG"),
    "image/bmp": picture("BMP"),
    "image/webp": picture("WEBP", lossless=True),
    "multipart/form-data; boundary=frontier": multipart(picture("PNG")),
}


def scores_in(answer: Answer) -> Array:
    """Return the scores of an answer, whatever its format."""
    kind = answer.header("content-type")
    if kind == "application/json":
        return np.array(json.loads(answer.body)["outputs"]["scores"], "<f4")
    if kind == "application/msgpack":
        return np.asarray(
            msgpack.unpackb(answer.body, object_hook=msgpack_numpy.decode)["outputs"]["scores"]
        )
    if kind == "application/x-npy":
        return np.asarray(np.load(BytesIO(answer.body)))
    if kind == "text/csv":
        header, *lines = answer.body.decode().splitlines()
        assert header == "label,probability,scores[0],scores[1]"
        return np.array([[float(cell) for cell in line.split(",")[2:]] for line in lines], "<f4")
    assert kind == "application/octet-stream"
    return np.frombuffer(answer.body, "<f4").reshape(-1, 2)


@pytest.mark.parametrize("content_type", BODIES)
def test_a_body_of_every_format_is_answered_in_it_or_else_in_json(
    both: Both, content_type: str
) -> None:
    server = MemoryServer(picture_model())
    answer = both(server, ask("/predict", BODIES[content_type], content_type=content_type))
    assert answer.status == 200
    one_way = content_type.startswith(("image/", "multipart/", "text/json", "application/json"))
    plain = "application/msgpack" if "msgpack" in content_type else content_type
    assert answer.header("content-type") == ("application/json" if one_way else plain)
    np.testing.assert_allclose(scores_in(answer), SCORES, atol=1e-6)
    for batch in server.model.batches:
        np.testing.assert_allclose(batch["image"], ROWS, atol=1e-7)


def test_a_jpeg_is_answered_nearly_as_the_picture_it_was_made_of(both: Both) -> None:
    answer = both(
        MemoryServer(picture_model()),
        ask("/predict", picture("JPEG", quality=98), content_type="image/jpeg"),
    )
    np.testing.assert_allclose(scores_in(answer), SCORES, atol=0.01)


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/msgpack",
        "application/octet-stream",
        "application/x-npy",
        "text/csv",
    ],
)
@pytest.mark.parametrize("content_type", ["image/png", "application/json"])
def test_the_answer_comes_in_the_format_that_was_asked_for(
    both: Both, content_type: str, accept: str
) -> None:
    server = MemoryServer(picture_model())
    answer = both(
        server, ask("/predict", BODIES[content_type], ("Accept", accept), content_type=content_type)
    )
    assert (answer.status, answer.header("content-type")) == (200, accept)
    np.testing.assert_allclose(scores_in(answer), SCORES, atol=1e-6)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/octet-stream"),
        ("text/html, */*;q=0.1", "application/octet-stream"),
        ("application/json;q=0.5, text/csv;q=0.9", "text/csv"),
        ("text/*", "text/csv"),
        ("application/octet-stream;q=0, */*", "application/json"),
        ("APPLICATION/JSON", "application/json"),
    ],
)
def test_the_most_wanted_of_several_formats_is_taken(
    both: Both, accept: str, expected: str
) -> None:
    server = MemoryServer(picture_model())
    assert (
        both(server, ask("/predict", ROWS.tobytes(), ("Accept", accept))).header("content-type")
        == expected
    )


def test_labels_and_probabilities_come_with_json_and_messagepack(both: Both) -> None:
    server = MemoryServer(picture_model())
    for accept in ("application/json", "application/msgpack"):
        answer = both(server, ask("/predict", ROWS.tobytes(), ("Accept", accept)))
        (best,) = answer.decoded()["predictions"]
        assert best["label"] == "bottom"
        assert best["probability"] == pytest.approx(SCORES[0, 1], abs=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 64, 65, 200])
def test_every_row_of_a_request_is_answered_in_its_order(both: Both, rows: int) -> None:
    server = MemoryServer(picture_model())
    images = np.random.default_rng(rows).random((rows, 1, 8, 8), dtype=np.float32)
    answer = both(server, ask("/predict", images.tobytes()))
    np.testing.assert_allclose(scores_in(answer), halves({"image": images})["scores"], atol=1e-6)


def test_several_files_of_a_form_are_several_rows(both: Both) -> None:
    server = MemoryServer(picture_model())
    body = multipart(picture("PNG"), picture("BMP"), picture("PNG")).replace(
        b"Content-Type: image/png\r\n", b""
    )
    answer = both(
        server, ask("/predict", body, content_type="multipart/form-data; boundary=frontier")
    )
    np.testing.assert_allclose(scores_in(answer), np.repeat(SCORES, 3, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    "route",
    [
        "/predict",
        "/models/m/predict",
        "/models/m/versions/1/predict",
        "/models/m/versions/01/predict",
    ],
)
def test_every_inference_route_gives_the_same_answer(both: Both, route: str) -> None:
    assert both(MemoryServer(picture_model()), ask(route, ROWS.tobytes())).body == SCORES.tobytes()


@pytest.mark.parametrize("name", ["a b", "ä", "a%b", "a+b"])
def test_a_models_name_is_percent_decoded_in_the_path(both: Both, name: str) -> None:
    server = MemoryServer(picture_model(name))
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    assert both(server, ask(f"/models/{quoted}/predict", ROWS.tobytes())).status == 200


@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_a_coded_body_is_decoded(both: Both, coding: str, encode: Callable[[bytes], bytes]) -> None:
    server = MemoryServer(picture_model())
    answer = both(server, ask("/predict", encode(ROWS.tobytes()), ("Content-Encoding", coding)))
    assert answer.status == 200, answer.body
    np.testing.assert_allclose(scores_in(answer), SCORES, atol=1e-6)


def test_a_chunked_body_is_put_together(both: Both) -> None:
    server = MemoryServer(picture_model())
    body = ROWS.tobytes()
    chunks = (
        b"".join(b"%x\r\n%b\r\n" % (50, body[start : start + 50]) for start in range(0, 250, 50))
        + b"6\r\n"
        + body[250:]
    )
    head = (
        b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    assert both(server, head + chunks + b"\r\n0\r\n\r\n").body == SCORES.tobytes()


def test_long_text_of_another_charset_is_recoded_beside_the_loop(both: Both) -> None:
    spec = model_spec((tensor("x", "BYTES", ()),), (tensor("y", "BYTES", ()),))
    server = MemoryServer(RecordingModel(spec, lambda inputs: {"y": inputs["x"]}))
    text = "größer" * HEAVY_BYTES
    body = text.encode("utf-16")
    answer = both(
        server,
        ask(
            "/predict",
            body,
            ("Content-Type", "text/plain; charset=utf-16"),
            ("Accept", "application/json"),
        ),
    )
    assert json.loads(answer.body)["outputs"]["y"] == [text]
    assert TEXT.is_text is not None
    assert TEXT.is_text(body)
