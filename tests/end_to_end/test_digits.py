"""The digits model behind a real server: every format, every held-out digit, pages and files."""

from __future__ import annotations

import csv
import json
import socket
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from pathlib import Path

import httpx
import msgpack
import msgpack_numpy
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.end_to_end.processes import ROOT, Process, one_answer, receive_all, run, started, until
from tests.support.http_answers import parse_answers

PICTURE = ROOT / "examples" / "digits" / "3.png"
ROW = (np.asarray(Image.open(PICTURE).convert("L"), "<f4") / np.float32(255)).reshape(1, 1, 8, 8)
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("digits")) as process:
        yield process
        assert "Traceback" not in process.errors


@pytest.fixture(scope="module")
def client(server: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, timeout=30) as client:
        yield client


def npy(array: np.ndarray) -> bytes:  # type: ignore[type-arg]
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def converted(kind: str) -> bytes:
    file = BytesIO()
    Image.open(PICTURE).convert("L").save(file, kind)
    return file.getvalue()


def multipart() -> bytes:
    head = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="3.png"\r\nContent-Type: '
        b"image/png\r\n\r\n"
    )
    return head + PICTURE.read_bytes() + b"\r\n--b--\r\n"


BODIES: dict[str, Callable[[], bytes]] = {
    OCTETS: ROW.tobytes,
    "application/json": lambda: json.dumps({"inputs": {"image": ROW.tolist()}}).encode(),
    "application/json; charset=utf-8": lambda: json.dumps({"instances": ROW.tolist()}).encode(),
    "application/msgpack": lambda: msgpack.packb(
        {"inputs": {"image": ROW}}, default=msgpack_numpy.encode
    ),
    "application/x-npy": lambda: npy(ROW),
    "text/csv": lambda: ",".join(map(str, ROW.ravel())).encode(),
    "image/png": PICTURE.read_bytes,
    "image/jpeg": lambda: converted("JPEG"),
    "image/bmp": lambda: converted("BMP"),
    "image/webp": lambda: converted("WEBP"),
    "multipart/form-data; boundary=b": multipart,
}


def label_of(answer: httpx.Response) -> int:
    """Return the label with the best score in an answer of any format."""
    kind = answer.headers["content-type"]
    if kind in ("application/json", "application/msgpack"):
        document = answer.json() if kind.endswith("json") else msgpack.unpackb(answer.content)
        return int(document["predictions"][0]["label"])
    if kind == "text/csv":
        return int(next(csv.DictReader(StringIO(answer.text)))["label"])
    scores = (
        np.frombuffer(answer.content, "<f4") if kind == OCTETS else np.load(BytesIO(answer.content))
    )
    return int(scores.argmax())


@pytest.mark.parametrize("content_type", BODIES)
def test_a_three_is_a_three_in_every_format(client: httpx.Client, content_type: str) -> None:
    answer = client.post(
        "/predict", content=BODIES[content_type](), headers={"Content-Type": content_type}
    )
    assert answer.status_code == 200, answer.text
    assert label_of(answer) == 3


@pytest.mark.parametrize(
    "accept", ["application/json", "application/msgpack", OCTETS, "application/x-npy", "text/csv"]
)
def test_a_three_is_a_three_in_every_format_of_an_answer(client: httpx.Client, accept: str) -> None:
    headers = {"Content-Type": "image/png", "Accept": accept, "X-Request-Id": "7", "X-Timing": "1"}
    answer = client.post(
        "/models/digits/versions/1/predict", content=PICTURE.read_bytes(), headers=headers
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == accept
    assert answer.headers["x-request-id"] == "7"
    assert "compute;dur=" in answer.headers["server-timing"]
    assert label_of(answer) == 3


def test_pages_and_errors_are_served_beside_it(client: httpx.Client) -> None:
    assert client.get("/readyz").json() == {"ready": True}
    assert "digits/1" in client.get("/").text
    assert "/models/{name}/predict" in client.get("/openapi.json").json()["paths"]
    assert client.get("/predict").headers["allow"] == "POST, OPTIONS"
    assert (
        client.post("/predict", content=b"12", headers={"Content-Type": OCTETS}).json()["code"]
        == "undecodable"
    )


def request(
    body: bytes, *fields: str, content_type: str = OCTETS, target: str = "/predict"
) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: h", f"Content-Type: {content_type}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def direct(images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Return the model's own scores."""
    import torch

    program = torch.export.load(ROOT / "models" / "digits" / "1" / "model.pt2")
    with torch.inference_mode():
        scores: npt.NDArray[np.float32] = program.module()(torch.from_numpy(images)).numpy()
    return scores


def test_concurrent_clients_each_get_their_own_digit_and_share_batches(server: Process) -> None:
    heldout = np.load(ROOT / "examples" / "digits" / "heldout.npz")
    images, labels = heldout["images"], heldout["labels"]
    assert images.shape == (360, 1, 8, 8)
    expected = direct(images)
    before = server.metric("batcher_batch_size_count"), server.metric("batcher_batch_size_sum")
    connections = [server.connect() for _ in images]
    requests = [request(image.tobytes(), "Content-Length: 256") for image in images]
    try:
        for connection, data in zip(connections, requests, strict=True):
            connection.sendall(data)
        answers = [one_answer(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert {answer.status for answer in answers} == {200}
    scores = np.stack([np.frombuffer(answer.body, "<f4") for answer in answers])
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    assert (scores.argmax(axis=1) == labels).mean() > 0.97
    assert server.metric("batcher_batch_size_sum") - before[1] == 360
    assert server.metric("batcher_batch_size_count") - before[0] <= 60


def test_pipelined_requests_on_one_connection_come_back_in_their_order(server: Process) -> None:
    images = np.load(ROOT / "examples" / "digits" / "heldout.npz")["images"][:200]
    with server.connect() as connection:
        data = b"".join(request(image.tobytes(), "Content-Length: 256") for image in images)
        connection.sendall(data + request(b"", "Content-Length: 0", "Connection: close"))
        answers, rest = parse_answers(receive_all(connection), [], over=True)
    assert rest == b""
    assert [answer.status for answer in answers] == [200] * 200 + [400]
    scores = np.stack([np.frombuffer(answer.body, "<f4") for answer in answers[:200]])
    np.testing.assert_allclose(scores, direct(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("content_type", [OCTETS, "image/png"])
def test_a_client_that_only_ends_its_sending_side_gets_its_whole_answer(
    server: Process, content_type: str
) -> None:
    body = BODIES[content_type]()
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(
                request(
                    body,
                    f"Content-Length: {len(body)}",
                    "Accept: application/json",
                    content_type=content_type,
                )
            )
            connection.shutdown(socket.SHUT_WR)
            data = receive_all(connection)
        (answer,), rest = parse_answers(data, [], over=True)
        assert (answer.status, rest, data.count(b"HTTP/1.1")) == (200, b"", 1)
        assert answer.decoded()["predictions"][0]["label"] == "3"


def test_the_command_line_predicts_files(server: Process, tmp_path: Path) -> None:
    row = tmp_path / "three.npy"
    row.write_bytes(npy(ROW))
    result = run("predict", f"{server.address}/predict", str(PICTURE), str(row))
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["predictions"][0]["label"] for answer in answers] == ["3", "3"]


def test_the_command_line_tells_what_went_wrong_with_a_file(
    server: Process, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    result = run("predict", f"{server.address}/predict", str(bad), str(PICTURE))
    assert result.returncode == 1
    assert "bad.png: 400" in result.stderr
    assert "1 of 2" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def test_connections_that_are_closed_are_forgotten(server: Process) -> None:
    connections = [server.connect() for _ in range(50)]
    until(lambda: server.metric("batcher_connections") >= 50)
    for connection in connections:
        connection.close()
    until(lambda: server.metric("batcher_connections") <= 3)
