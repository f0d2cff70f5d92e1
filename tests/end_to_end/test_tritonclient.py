"""Triton's own client, blocking and asyncio, against the digits.

The tests go through every way to send and to receive a tensor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.processes import ROOT, Process, started
from tests.end_to_end.test_digits import direct

http = pytest.importorskip("tritonclient.http", reason="extra test-clients")
aio = pytest.importorskip("tritonclient.http.aio", reason="extra test-clients")
utils = pytest.importorskip("tritonclient.utils", reason="extra test-clients")

IMAGES = np.load(ROOT / "examples" / "digits" / "heldout.npz")["images"][:5].astype("<f4")
CODINGS = (
    {},
    *(
        {f"{way}_compression_algorithm": coding for way in ("request", "response")}
        for coding in ("gzip", "deflate")
    ),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("triton")) as process:
        yield process
        assert "Traceback" not in process.errors


@pytest.fixture
def client(server: Process) -> Iterator[Any]:
    with http.InferenceServerClient(":".join(map(str, server.host_and_port))) as found:
        yield found


def image(kind: Any, binary: bool) -> Any:
    tensor = kind.InferInput("image", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES, binary_data=binary)
    return tensor


@pytest.mark.parametrize("coding", CODINGS, ids=["plain", "gzip", "deflate"])
@pytest.mark.parametrize("answer", [None, True, False], ids=["all", "binary out", "json out"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary in", "json in"])
def test_every_way_to_send_and_receive_gives_the_models_own_scores(
    client: Any, binary: bool, answer: bool | None, coding: dict[str, str]
) -> None:
    outputs = None if answer is None else [http.InferRequestedOutput("scores", binary_data=answer)]
    result = client.infer(
        "digits",
        [image(http, binary)],
        outputs=outputs,
        request_id="a",
        priority=1,
        timeout=10**7,
        **coding,
    )
    assert np.allclose(result.as_numpy("scores"), direct(IMAGES), atol=1e-5)
    assert result.get_response()["id"] == "a"


def test_the_best_classes_come_with_their_labels(client: Any) -> None:
    result = client.infer(
        "digits", [image(http, True)], outputs=[http.InferRequestedOutput("scores", class_count=3)]
    )
    found = result.as_numpy("scores")
    assert found.shape == (5, 3)
    best = [int(text[0].split(b":")[1]) for text in found]
    assert best == direct(IMAGES).argmax(axis=1).tolist()


def test_asynchronous_requests_are_each_answered_with_their_own(client: Any) -> None:
    pending = []
    for one in IMAGES:
        tensor = http.InferInput("image", [1, *one.shape], "FP32")
        tensor.set_data_from_numpy(one[None])
        pending.append(client.async_infer("digits", [tensor]))
    answers = np.concatenate([found.get_result().as_numpy("scores") for found in pending])
    assert np.allclose(answers, direct(IMAGES), atol=1e-5)


def test_the_asyncio_client_gets_the_same(server: Process) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(":".join(map(str, server.host_and_port))) as found:
            for binary in (True, False):
                outputs = [aio.InferRequestedOutput("scores", binary_data=binary)]
                results = await asyncio.gather(
                    *(
                        found.infer("digits", [image(aio, binary)], outputs=outputs)
                        for _ in range(16)
                    )
                )
                for result in results:
                    assert np.allclose(result.as_numpy("scores"), direct(IMAGES), atol=1e-5)

    asyncio.run(ask())


def test_questions_about_server_and_model_are_answered(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "2")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata, config = client.get_model_metadata("digits"), client.get_model_config("digits")
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (64, [1, 8, 8])


def test_statistics_count_what_was_asked(client: Any) -> None:
    def count() -> int:
        (entry,) = client.get_inference_statistics("digits")["model_stats"]
        return int(entry["inference_count"])

    before = count()
    client.infer("digits", [image(http, True)])
    assert count() == before + 5


def test_errors_arrive_with_their_text(client: Any) -> None:
    wrong = http.InferInput("image", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), "<f4"))
    with pytest.raises(
        utils.InferenceServerException, match=r"expected shape \[-1,1,8,8\]; got \[1,3\]"
    ):
        client.infer("digits", [wrong])
    with pytest.raises(utils.InferenceServerException, match="expected one of 'digits'"):
        client.infer("other", [image(http, True)])
    with pytest.raises(utils.InferenceServerException, match="a part of the protocol"):
        client.get_trace_settings()
