"""Lines of OpenAI's batches: what is checked before they run, read, and written."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from batcher.codecs.row_files import batch_lines, batch_reading
from batcher.codecs.row_files.batch_lines import check_batch
from batcher.codecs.row_files.batch_reading import BatchReader
from batcher.codecs.row_files.batch_writing import BatchWriter
from batcher.codecs.row_files.named_files import NamedFiles
from batcher.codecs.row_files.opening import error_line_of
from batcher.core.portions import Answer, BatchCheck, Portion
from batcher.core.request import InferenceResponse
from batcher.core.spec import ModelSpec
from batcher.errors import InputMissing, InputSourceFailed, ModelError, TooLarge
from tests.codecs.formats.test_base64_pictures import b64
from tests.codecs.formats.test_references import CONTENTS, ROWS, npy, ref
from tests.support.codec_inputs import encoded, picture_spec, pixels
from tests.support.models import model_spec, tensor

EMBEDDINGS, PREDICT = "/v1/embeddings", "/models/m/predict"
WORDS = model_spec((tensor("text", "BYTES", ()),), (tensor("vector", "FP32", (2,)),))
NUMBERS = model_spec((tensor("x", "FP32", (2,)),), (tensor("y", "FP32", (2,)),))


def asked(custom_id: Any, url: str = EMBEDDINGS, **body: Any) -> dict[str, Any]:
    model = {"model": "m"} if url == EMBEDDINGS else {}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {**model, **body}}


def text_of(*lines: Any) -> bytes:
    each = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return b"".join(line + b"\n" for line in each)


def checked(*lines: Any, endpoint: str = EMBEDDINGS, most: int = 10) -> BatchCheck:
    check = check_batch(BytesIO(text_of(*lines)), endpoint, most, lambda: False)
    assert check is not None
    return check


def test_a_batch_names_one_model_and_is_counted() -> None:
    assert checked(asked("a", input="x"), b"", asked("b", input="y")) == BatchCheck("m", 2, [])
    assert checked(asked("a", PREDICT), endpoint=PREDICT).model == "m"
    assert check_batch(BytesIO(text_of(asked("a"))), EMBEDDINGS, 10, lambda: True) is None


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{no", "invalid_json_line", None),
        ([], "invalid_json_line", None),
        ({"custom_id": "b"}, "missing_required_parameter", "method"),
        (asked(7), "invalid_custom_id", "custom_id"),
        (asked("b" * 513), "invalid_custom_id", "custom_id"),
        (asked("a"), "duplicate_custom_id", "custom_id"),
        ({**asked("b"), "method": "GET"}, "invalid_method", "method"),
        ({**asked("b"), "body": []}, "invalid_body", "body"),
        (asked("b", "/v1/responses"), "invalid_url", "url"),
        (asked("b", PREDICT), "mismatched_endpoint", "url"),
        (asked("b", model=3), "invalid_model", "body.model"),
        (asked("b", model="other"), "mismatched_model", "body.model"),
    ],
)
def test_a_fault_says_which_line_has_it(line: Any, code: str, param: str | None) -> None:
    (fault,) = checked(asked("a"), b"", line, asked("c")).faults
    assert (fault.line, fault.code, fault.param) == (3, code, param)


def test_batches_that_are_empty_or_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [fault.code for fault in checked(b"", b"").faults] == ["empty_file"]
    many = [asked(str(number)) for number in range(4)]
    assert [fault.code for fault in checked(*many, most=3).faults] == ["too_many_requests"]
    monkeypatch.setattr(batch_lines, "MOST_FAULTS", 2)
    assert len(checked(b"{", b"{", b"{").faults) == 2


def read(spec: ModelSpec, rows: int, *lines: Any) -> list[Portion]:
    reader = BatchReader(BytesIO(text_of(*lines)), spec, 1000)
    found, position = [], reader.begin
    while (portion := reader.read(position, rows)) is not None:
        found.append(portion)
        position = portion.after
    return found


def test_requests_of_one_row_are_joined_and_those_of_several_stand_alone() -> None:
    lines = [asked(id, input=text) for id, text in (("a", "1"), ("b", ["2", "3"]), ("c", "4"))]
    (portion,) = read(WORDS, 4, *lines)
    assert portion.places == ["a", "b", "c"]
    found = [(list(group.rows), group.inputs["text"].tolist()) for group in portion.groups]
    assert found == [([0, 2], [b"1", b"4"]), ([1], [b"2", b"3"])]
    first, second = read(WORDS, 2, *lines)
    assert (first.places, second.places) == (["a", "b"], ["c"])


def test_a_request_that_cannot_be_sent_keeps_its_custom_id() -> None:
    lines = [asked("a", input=""), b"{", asked("b", PREDICT, inputs={}), asked("c", model="n")]
    (portion,) = read(WORDS, 4, *lines)
    assert portion.places == ["a", 2, "b", "c"]
    assert sorted(portion.bad) == [0, 1, 2, 3]
    assert portion.groups == []
    (numbers,) = read(NUMBERS, 4, asked("a", input="x"))
    assert "makes embeddings" in str(numbers.bad[0])


def test_a_request_of_many_small_pictures_is_refused_before_they_are_decoded() -> None:
    spec = picture_spec((3, 2000, 2000), dtype="FP32")
    body = {"inputs": {"x": [b64(encoded(pixels(channels=3)))] * 6}}
    (portion,) = read(spec, 4, asked("a", PREDICT, **body))
    assert isinstance(portion.bad[0], TooLarge)


def response(**outputs: Any) -> InferenceResponse:
    arrays = {name: np.array(value, "f4") for name, value in outputs.items()}
    return InferenceResponse("m", "1", arrays, 0, 0, 1)


def written(spec: ModelSpec, portion: Portion, *answers: Answer) -> list[dict[str, Any]]:
    text = BatchWriter(spec, {}, "out.openai.jsonl").write(portion, answers).parts[0]
    return [json.loads(line) for line in text.splitlines()]


def test_answers_are_those_of_the_route_in_the_order_of_the_requests() -> None:
    two = {"input": ["2", "3"], "encoding_format": "base64"}
    (portion,) = read(WORDS, 4, asked("a", input="1"), asked("b", **two), asked("c", input="4"))
    answers = (
        Answer([1], response(vector=[[2, 0], [3, 0]])),
        Answer([0, 2], response(vector=[[1, 0], [4, 0]])),
    )
    lines = written(WORDS, portion, *answers)
    assert [line["custom_id"] for line in lines] == ["a", "b", "c"]
    bodies = [line["response"]["body"] for line in lines]
    assert [len(body["data"]) for body in bodies] == [1, 2, 1]
    assert bodies[2]["data"][0]["embedding"] == [4.0, 0.0]
    assert isinstance(bodies[1]["data"][0]["embedding"], str)
    assert {line["response"]["status_code"] for line in lines} == {200}
    assert len({line["id"] for line in lines}) == 3
    assert written(WORDS, portion, *answers) == lines


def test_any_model_answers_as_its_own_route_does() -> None:
    body = {"inputs": {"x": [[1, 2], [3, 4]]}}
    (portion,) = read(NUMBERS, 4, asked("a", PREDICT, **body))
    (line,) = written(NUMBERS, portion, Answer([0], response(y=[[2, 4], [6, 8]])))
    assert line["response"]["body"] == {"outputs": {"y": [[2.0, 4.0], [6.0, 8.0]]}}


def test_requests_without_an_answer_stand_in_the_errors_alone() -> None:
    (portion,) = read(WORDS, 4, asked("a", input="1"), asked("b", input="2"))
    lines = written(WORDS, portion, Answer([1], response(vector=[[2, 0]])))
    assert [line["custom_id"] for line in lines] == ["b"]
    line = json.loads(error_line_of("o.openai.jsonl", "custom_id")("a", ModelError("x"), "failed"))
    assert line["custom_id"] == "a"
    assert line["error"] is None
    assert line["response"]["status_code"] == 500
    expected = {"message": "failed", "type": "server_error", "param": None, "code": "model_error"}
    assert line["response"]["body"] == {"error": expected}


def test_vectors_that_turn_out_too_short_fail_their_request_alone() -> None:
    spec = model_spec((tensor("text", "BYTES", ()),), (tensor("vector", "FP32", (-1,)),))
    (portion,) = read(spec, 4, asked("a", input="1", dimensions=9), asked("b", input="2"))
    answer = Answer([0, 1], response(vector=[[1, 0], [2, 0]]))
    found = BatchWriter(spec, {}, "o.openai.jsonl").write(portion, [answer])
    assert list(found.refused) == [0]
    assert json.loads(found.parts[0])["custom_id"] == "b"


class Shelf:
    """Files that requests name, and how many are had at the same time.

    Attributes:
        most: tasks of each run.
    """

    def __init__(self) -> None:
        self.most: list[int] = []

    def fetch(self, addresses: Any) -> dict[str, bytes]:
        if any(address.endswith("down") for address in addresses):
            raise InputSourceFailed("no answer")
        if any(address not in CONTENTS for address in addresses):
            raise InputMissing("there is none")
        return {address: CONTENTS[address] for address in addresses}

    def run(self, tasks: Any, most: int) -> list[Any]:
        self.most.append(len(tasks))
        assert len(tasks) <= most
        return [task() for task in tasks]


def test_requests_name_files_as_those_of_the_route_do() -> None:
    shelf = Shelf()
    named = [ref("one.npy"), ref("rows.npy"), ref("none"), ref("down"), ref("one.npy")]
    lines = [asked(str(number), PREDICT, inputs={"x": each}) for number, each in enumerate(named)]
    lines += [asked(str(number), PREDICT, inputs={"x": [[0] * 4]}) for number in (5, 6)]
    files = NamedFiles(shelf.fetch, shelf.run)
    reader = BatchReader(BytesIO(text_of(*lines)), model_spec(), 1000, files)
    portion = reader.read(reader.begin, 32)
    assert portion is not None
    assert portion.places == [str(number) for number in range(7)]
    found = {tuple(group.rows): group.inputs["x"].tolist() for group in portion.groups}
    one = ROWS[1].tolist()
    assert found == {(0, 4, 5, 6): [one, one, [0] * 4, [0] * 4], (1,): ROWS.tolist()}
    assert isinstance(portion.bad[3], InputSourceFailed)
    assert isinstance(portion.bad[2], InputMissing)
    assert shelf.most == [7]
    (short,) = read(model_spec(), 4, asked("a", PREDICT, inputs={"x": ref("one.npy")}))
    assert list(short.bad) == [0]


def test_what_files_become_ends_a_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_reading, "PORTION_BYTES", 4000)
    big = {"s3://p/big": npy(np.zeros((60, 4), "<f4"))}  # 960 bytes
    lines = [asked(str(n), PREDICT, inputs={"x": {"ref": "s3://p/big"}}) for n in range(20)]
    files = NamedFiles(lambda _: big, lambda tasks, _: [task() for task in tasks])
    reader = BatchReader(BytesIO(text_of(*lines)), model_spec(), 1000, files)
    portion = reader.read(reader.begin, 2000)
    assert portion is not None
    assert len(portion.places) == 8
