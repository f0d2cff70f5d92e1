"""The Open Inference Protocol's requests and answers.

They are tested in every datatype, in JSON and in binary, and with everything that may be wrong.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.oip.classes import best_classes
from batcher.codecs.oip.elements import from_elements, to_elements
from batcher.codecs.oip.request import InferHead, raw_head, read_head
from batcher.codecs.oip.response import encode
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.request import nbytes_of
from batcher.core.spec import DATATYPES, Array, Labels, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput, NotServed, TooLarge
from tests.support.codec_inputs import REFUSALS, arrays, batches, damaged, one_input, response
from tests.support.models import model_spec, tensor

ALL = list(DATATYPES)
HUGE = 2**31 - 1
SPEC = model_spec(
    inputs=(tensor("x"), tensor("n", "INT64", ())),
    outputs=(tensor("y"), tensor("z", "BYTES", ())),
)
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
N = {"name": "n", "shape": [1], "datatype": "INT64", "data": [7]}


def document(**changes: Any) -> bytes:
    """Return a right request with some members changed; `None` leaves one out."""
    members = {"inputs": [X, N], **changes}
    return json.dumps({key: value for key, value in members.items() if value is not None}).encode()


def with_input(**changes: Any) -> bytes:
    """Return a request whose first input is changed; `None` leaves a member out."""
    return document(
        inputs=[{key: value for key, value in (X | changes).items() if value is not None}, N]
    )


def elements(array: Array, dtype: str) -> bytes:
    """Return the binary form of a tensor."""
    return to_elements(array) if dtype == "BYTES" else array.tobytes()


@given(batches(ALL))
def test_binary_tensors_of_every_datatype_come_back_as_they_were_sent(
    drawn: tuple[ModelSpec, Array],
) -> None:
    spec, sent = drawn
    dtype = spec.inputs[0].datatype.name
    data = elements(sent, dtype)
    entry = {
        "name": "x",
        "shape": sent.shape,
        "datatype": dtype,
        "parameters": {"binary_data_size": len(data)},
    }
    head = read_head(
        json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode(), spec
    )
    inputs = head.inputs(data)
    assert check_inputs(spec, inputs) == len(sent)
    assert elements(inputs["x"], dtype) == data
    body, length = encode(response(x=inputs["x"]), head)
    assert length is not None
    (output,) = json.loads(body[:length])["outputs"]
    assert output == {
        "name": "x",
        "shape": list(sent.shape),
        "datatype": dtype,
        "parameters": {"binary_data_size": len(data)},
    }
    assert body[length:] == data


@given(batches(ALL, finite=True), st.booleans())
def test_json_tensors_of_every_datatype_come_back_as_they_were_sent(
    drawn: tuple[ModelSpec, Array], nested: bool
) -> None:
    spec, sent = drawn
    head = InferHead("", 0, None, {}, (), read_head(_json_request(sent, spec, [], 1), spec).outputs)
    body, length = encode(response(x=sent), head)
    assert length is None
    (output,) = json.loads(body)["outputs"]
    assert "parameters" not in output
    data = (
        np.array(output["data"], dtype=object).reshape(sent.shape).tolist()
        if nested
        else output["data"]
    )
    again = read_head(_json_request(sent, spec, data, len(sent)), spec).inputs(b"")["x"]
    assert elements(again, spec.inputs[0].datatype.name) == elements(
        sent, spec.inputs[0].datatype.name
    )


def _json_request(sent: Array, spec: ModelSpec, data: list[Any], rows: int) -> bytes:
    shape = [rows, *sent.shape[1:]]
    blank: dict[str, Any] = {"BYTES": "", "BOOL": False}
    filled = data or [blank.get(spec.inputs[0].datatype.name, 0)] * int(np.prod(shape))
    entry = {"name": "x", "shape": shape, "datatype": spec.inputs[0].datatype.name, "data": filled}
    return json.dumps({"inputs": [entry]}).encode()


def test_binary_and_json_tensors_may_be_mixed_in_any_order() -> None:
    binary = {"name": "n", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
    head = read_head(document(inputs=[binary, X]), SPEC)
    inputs = head.inputs(np.int64(9).tobytes())
    assert inputs["n"].tolist() == [9]
    assert inputs["x"].tolist() == [[1, 2, 3, 4]]


def test_binary_inputs_are_views_of_the_body() -> None:
    entry = {
        "name": "x",
        "shape": [2, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 16},
    }
    head = read_head(json.dumps({"inputs": [entry]}).encode(), one_input())
    body = bytearray(np.arange(4, dtype="<f4").tobytes())
    array = head.inputs(memoryview(body))["x"]
    body[0:4] = np.float32(9).tobytes()
    assert array[0, 0] == 9


def test_a_request_says_what_it_wants() -> None:
    outputs = [
        {"name": "z", "parameters": {"binary_data": True}},
        {"name": "y", "parameters": {"classification": 2}},
    ]
    head = read_head(
        document(id="a", parameters={"priority": 2, "timeout": 1500}, outputs=outputs, more=[1]),
        SPEC,
    )
    assert (head.id, head.priority, head.timeout) == ("a", 2, 0.0015)
    assert [(wanted.tensor.name, wanted.binary, wanted.classes) for wanted in head.outputs] == [
        ("y", False, 2),
        ("z", True, 0),
    ]


@pytest.mark.parametrize(
    ("own", "default", "expected"),
    [(None, True, True), (False, True, False), (True, None, True), (None, None, False)],
)
def test_an_outputs_own_flag_comes_before_the_requests(
    own: bool | None, default: bool | None, expected: bool
) -> None:
    flag = {} if own is None else {"parameters": {"binary_data": own}}
    common = {} if default is None else {"binary_data_output": default}
    head = read_head(document(parameters=common, outputs=[{"name": "y", **flag}]), SPEC)
    assert [wanted.binary for wanted in head.outputs] == [expected]


@pytest.mark.parametrize("outputs", [None, []])
def test_all_outputs_are_wanted_where_none_is_named(outputs: list[Any] | None) -> None:
    assert [
        wanted.tensor.name for wanted in read_head(document(outputs=outputs), SPEC).outputs
    ] == ["y", "z"]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"[]", "an object"),
        (b"{", "JSON"),
        (b"", "JSON"),
        (document(id=7), "id"),
        (document(inputs=None), "inputs"),
        (document(inputs=[]), "inputs"),
        (document(inputs={}), "inputs"),
        (document(inputs=[7]), "an object"),
        (document(inputs=[X]), "'n'"),
        (document(inputs=[X, X, N]), "'x'.*twice"),
        (document(inputs=[X] * 10_000), "'x'.*twice"),
        (document(outputs=[{"name": "y"}] * 10_000), "'y'.*twice"),
        (document(parameters={str(n): n for n in range(101)}), "at most 100; got 101"),
        (document(inputs=[X, N | {"name": "other"}]), "other"),
        (document(inputs=[X, N | {"name": None}]), "None"),
        (with_input(datatype="FP64"), "FP32.*FP64"),
        (with_input(datatype=None), "FP32"),
        (with_input(shape=None), "shape"),
        (with_input(shape=[4]), r"\[-1,4\]"),
        (with_input(shape=[1, 5]), r"\[-1,4\]"),
        (with_input(shape=[-1, 4]), "shape"),
        (with_input(shape=[1.0, 4]), "shape"),
        (with_input(shape=[True, 4]), "shape"),
        (with_input(shape=[10**18, 4]), "axes of at most 2147483647"),
        (with_input(shape=[10**9, 4]), "4000000000 values"),
        (with_input(shape=[2, 4]), "8 values.*4 values"),
        (with_input(data=None), "data"),
        (with_input(data=7), "nested lists"),
        (with_input(data=[1, 2, 3]), "4 values.*3 values"),
        (with_input(data=[[1, 2], [3, 4]]), r"\[1,4\].*\[2,2\]"),
        (with_input(data=[1, 2, 3, "4"]), "a number"),
        (with_input(parameters={"binary_data_size": 16}), "both"),
        (with_input(data=None, parameters={"binary_data_size": -1}), "binary_data_size"),
        (with_input(data=None, parameters={"binary_data_size": "16"}), "binary_data_size"),
        (with_input(parameters=[]), "parameters"),
        (document(parameters={"priority": -1}), "priority"),
        (document(parameters={"priority": "high"}), "priority"),
        (document(parameters={"timeout": 0.5}), "timeout"),
        (document(parameters={"timeout": -1}), "timeout"),
        (document(parameters={"binary_data_output": "yes"}), "binary_data_output"),
        (document(parameters={"mine": [1]}), "mine"),
        (document(parameters={"mine": None}), "mine"),
        (document(parameters={"triton_enable": 1}), "triton_enable"),
        (document(outputs=[{"name": "w"}]), "'w'"),
        (document(outputs=[{"name": "y"}, {"name": "y"}]), "twice"),
        (document(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), "binary_data"),
        (document(outputs=[{"name": "y", "parameters": {"classification": -1}}]), "classification"),
        (document(outputs=[{"name": "y", "parameters": {"classification": 1001}}]), "at most 1000"),
        (document(outputs=[{"name": "z", "parameters": {"classification": 1}}]), "classification"),
        (document(outputs="y"), "outputs"),
    ],
)
def test_what_is_wrong_is_refused_with_what_was_expected(body: bytes, names: str) -> None:
    with pytest.raises((InvalidInput, DecodingError), match=names):
        read_head(body, SPEC)


@pytest.mark.parametrize(
    "body",
    [
        with_input(parameters={"shared_memory_region": "r"}),
        document(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
        document(parameters={"sequence_id": 7}),
        document(parameters={"sequence_id": "a"}),
        document(parameters={"sequence_start": True}),
    ],
)
def test_what_is_not_served_is_refused_and_not_ignored(body: bytes) -> None:
    with pytest.raises(NotServed):
        read_head(body, SPEC)


def test_parameters_that_ask_for_nothing_are_ignored() -> None:
    head = read_head(
        document(
            id="",
            parameters={
                "sequence_id": 0,
                "sequence_end": False,
                "priority": 0,
                "timeout": 0,
                "mine": 1.5,
            },
        ),
        SPEC,
    )
    assert (head.id, head.priority, head.timeout) == ("", 0, None)


@pytest.mark.parametrize("data", [bytes(15), bytes(17), b""])
def test_bytes_behind_the_json_must_be_as_many_as_it_says(data: bytes) -> None:
    entry = {
        "name": "x",
        "shape": [2, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 16},
    }
    with pytest.raises(DecodingError, match="expected 16 bytes"):
        read_head(json.dumps({"inputs": [entry]}).encode(), one_input()).inputs(data)


def test_bytes_behind_a_request_without_binary_tensors_are_refused() -> None:
    with pytest.raises(DecodingError, match="expected 0 bytes"):
        read_head(document(), SPEC).inputs(b"x")


def test_a_binary_size_that_its_shape_denies_is_refused() -> None:
    entry = {
        "name": "x",
        "shape": [1, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 16},
    }
    with pytest.raises(DecodingError, match=r"expected 8 bytes for FP32\[1,2\]; got 16"):
        read_head(json.dumps({"inputs": [entry]}).encode(), one_input()).inputs(bytes(16))


class TestElements:
    @given(arrays("BYTES", (2, 3)))
    def test_they_come_back_as_they_were_sent(self, sent: Array) -> None:
        assert from_elements(to_elements(sent), (2, 3), "x").tolist() == sent.tolist()

    @pytest.mark.parametrize(
        "data", [b"", b"\x01\0\0\0", b"\x01\0\0\0ab", b"\xff\xff\xff\xffa", b"\0\0\0\0" * 3]
    )
    def test_more_or_fewer_of_them_are_refused(self, data: bytes) -> None:
        with pytest.raises(DecodingError, match="expected 2 BYTES elements"):
            from_elements(data, (2,), "x")

    def test_a_shape_that_is_too_large_costs_nothing(self) -> None:
        with pytest.raises(DecodingError, match="too few"):
            from_elements(b"\0\0\0\0", (1 << 62, 4), "x")


class TestBinariesBeyondTheLimits:
    """What the queue could never hold is refused before the bytes are looked at."""

    @staticmethod
    def head(
        shape: list[int], size: int, limits: DecodingLimits, dtype: str = "BYTES"
    ) -> InferHead:
        entry = {
            "name": "x",
            "shape": shape,
            "datatype": dtype,
            "parameters": {"binary_data_size": size},
        }
        return read_head(json.dumps({"inputs": [entry]}).encode(), one_input(dtype, (-1,)), limits)

    @pytest.mark.parametrize("sent", [[b"", b"", b""], [b"a" * 100, b"bc", b""]])
    def test_elements_count_with_the_memory_of_their_objects(self, sent: list[bytes]) -> None:
        array = np.array([sent], object)
        data, held = to_elements(array), nbytes_of({"x": array})
        exactly = self.head([1, 3], len(data), DecodingLimits(1, held))
        assert exactly.inputs(data)["x"].tolist() == [sent]
        with pytest.raises(TooLarge, match=f"got at least 0 rows and {held} bytes"):
            self.head([1, 3], len(data), DecodingLimits(1, held - 1))

    @pytest.mark.parametrize("dtype", ["BYTES", "FP32"])
    def test_rows_are_counted(self, dtype: str) -> None:
        with pytest.raises(TooLarge, match="at most 4 rows"):
            self.head([5, 1], 20, DecodingLimits(4, 1 << 30), dtype)


class TestRawBodies:
    def test_the_body_is_one_row(self) -> None:
        data = np.arange(2, dtype="<f4").tobytes()
        head = raw_head(one_input(), len(data))
        assert head.inputs(data)["x"].tolist() == [[0, 1]]
        assert [wanted.binary for wanted in head.outputs] == [True]

    @pytest.mark.parametrize("shape", [(), (1,), (-1,)])
    def test_a_text_is_the_whole_body(self, shape: tuple[int, ...]) -> None:
        assert raw_head(one_input("BYTES", shape), 5).inputs(b"hello")["x"].ravel().tolist() == [
            b"hello"
        ]

    def test_a_free_axis_follows_from_the_length(self) -> None:
        assert raw_head(one_input("INT16", (2, -1)), 12).inputs(bytes(12))["x"].shape == (1, 2, 3)

    @pytest.mark.parametrize("spec", [SPEC, one_input("FP32", (-1, -1)), one_input("BYTES", (2,))])
    def test_a_model_whose_input_cannot_be_told_from_the_body_is_refused(
        self, spec: ModelSpec
    ) -> None:
        with pytest.raises(InvalidInput, match="expected JSON"):
            raw_head(spec, 8)

    def test_a_length_between_two_shapes_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="multiple of 8"):
            raw_head(one_input("FP32", (2, -1)), 12)


@pytest.mark.parametrize("dtype", ["FP32", "FP64", "BYTES", "BOOL"])
@pytest.mark.parametrize(
    "shape",
    [
        [1, 2**62, 0],
        [2**62, 2**62, 0],
        [1, 0, 2**63 - 1],
        [1, 2**31 - 1, 0],
        [2**31 - 1, 2**31 - 1, 0],
    ],
)
def test_a_huge_axis_beside_one_of_0_is_read_or_refused(dtype: str, shape: list[int]) -> None:
    spec = one_input(dtype, (-1, -1))
    for content in ({"data": []}, {"parameters": {"binary_data_size": 0}}):
        entry = {"name": "x", "datatype": dtype, "shape": shape, **content}
        with suppress(InvalidInput):
            assert (
                read_head(json.dumps({"inputs": [entry]}).encode(), spec).inputs(b"")["x"].size == 0
            )


@pytest.mark.parametrize("data", [[], [[], []]])
def test_lists_end_at_an_axis_of_0(data: list[Any]) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 0, 3], "data": data}
    assert read_head(json.dumps({"inputs": [entry]}).encode(), one_input("FP32", (-1, 3))).inputs(
        b""
    )["x"].shape == (2, 0, 3)


class TestClasses:
    def test_the_best_come_first_with_value_index_and_label(self) -> None:
        best = best_classes(
            np.array([[0.25, 0.5, 0.125], [1.0, 0.0, 2.0]], "<f4"), 2, ("a", "b", "c")
        )
        assert best.tolist() == [
            [b"0.500000:1:b", b"0.250000:0:a"],
            [b"2.000000:2:c", b"1.000000:0:a"],
        ]

    def test_whole_numbers_are_compared_exactly(self) -> None:
        scores = np.array([[2**64 - 2, 2**64 - 1, 2**64 - 1]], "<u8")
        assert [text.split(b":")[1] for text in best_classes(scores, 3, ())[0]] == [
            b"1",
            b"2",
            b"0",
        ]

    def test_labels_are_those_of_the_last_axis(self) -> None:
        assert best_classes(
            np.array([[[1.0, 2.0], [4.0, 3.0]]], "<f4"), 2, ("a", "b")
        ).tolist() == [[b"4.000000:2:a", b"3.000000:3:b"]]

    def test_there_are_no_more_than_the_output_has(self) -> None:
        assert best_classes(np.array([[3, 5]], "<i8"), 10, ()).tolist() == [[b"5:1", b"3:0"]]

    def test_they_take_the_place_of_the_output(self) -> None:
        spec = model_spec(
            inputs=(tensor("x"),),
            outputs=(tensor("y", "FP32", (2,), labels=Labels(("no", "yes"))),),
        )
        head = read_head(
            json.dumps(
                {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}
            ).encode(),
            spec,
        )
        (output,) = json.loads(encode(response(y=np.array([[0.5, 0.75]], "<f4")), head).body)[
            "outputs"
        ]
        assert output == {
            "name": "y",
            "datatype": "BYTES",
            "shape": [1, 1],
            "data": ["0.750000:1:yes"],
        }


def test_an_answer_names_the_request_only_if_that_had_a_name() -> None:
    spec = one_input()
    body = json.dumps(
        {"id": "é", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    ).encode()
    answer = encode(response(x=np.ones((1, 2), "<f4")), read_head(body, spec))
    assert json.loads(answer.body)["id"] == "é"
    assert (
        b'"id"'
        not in encode(
            response(x=np.ones((1, 2), "<f4")), read_head(body.replace(b"id", b"no"), spec)
        ).body
    )


@given(
    damaged(
        [
            document(),
            with_input(parameters={"binary_data_size": 16}),
            document(outputs=[{"name": "y"}]),
        ]
    )
)
def test_a_damaged_request_is_read_or_refused(body: bytes) -> None:
    with suppress(*REFUSALS, NotServed):
        read_head(body, SPEC).inputs(b"")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.sampled_from(["id", "inputs", "outputs", "parameters"]),
    JSON,
    st.sampled_from(["", *X, "parameters"]),
)
def test_any_json_in_any_place_is_read_or_refused(member: str, value: Any, inner: str) -> None:
    body = with_input(**{inner: value}) if inner else document(**{member: value})
    with suppress(*REFUSALS, NotServed):
        read_head(body, SPEC).inputs(b"")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"inputs": [[4, 4]]}', "inputs: expected an object; got"),
        (b'{"inputs": {"x": [4, 4]}}', "inputs: expected a list of tensors; got"),
        (b'{"instances": [[4, 4]]}', "inputs: expected a list of tensors; got none"),
        (b"[[4, 4]]", "body: expected an object; got"),
    ],
)
def test_rows_in_the_place_of_tensors_are_refused_with_the_form_and_the_route_of_plain_rows(
    body: bytes, words: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_head(body, SPEC)
    message = str(caught.value)
    assert message.startswith(words)
    example, route = message.split(": write ")[1].rsplit(", or post plain rows to ")
    assert route == "/models/NAME/predict"
    head = read_head(example.encode(), one_input("FP32", (2,)))
    assert head.arrays["x"].tolist() == [[4, 4]]


def test_names_in_the_place_of_outputs_are_refused_with_the_form() -> None:
    with pytest.raises(InvalidInput, match=r'got .y.: write {"outputs": \[{"name": "y"}\]}$'):
        read_head(document(outputs=["y"]), SPEC)
