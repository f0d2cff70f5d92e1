"""The sample that a model is checked with: read as a request is, or made up."""

from __future__ import annotations

import json
from io import BytesIO

import msgpack
import numpy as np
import pytest
from PIL import Image

from batcher.app.checking import rules
from batcher.core.spec import Array
from tests.support.checking import check, messages, of, predicting
from tests.support.model_folders import Folders, floats

TWO = "[{name: y, dtype: FP32, shape: [4]}, {name: z, dtype: INT64, shape: []}]"
INTEGER = "[{name: x, dtype: INT64, shape: [2]}]"
TEXT = "[{name: x, dtype: BYTES, shape: []}]"
FREE = "[{name: x, dtype: FP32, shape: [-1]}]"
BF16 = "[{{name: {}, dtype: BF16, shape: [4]}}]"


def packed(array: Array) -> bytes:
    fields = {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": array.shape,
        b"data": array.tobytes(),
    }
    packed: bytes = msgpack.packb({"inputs": {"x": fields}})
    return packed


def saved(array: Array) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture() -> bytes:
    file = BytesIO()
    Image.fromarray(np.arange(4, dtype="u1").reshape(2, 2) * 60).save(file, "PNG")
    return file.getvalue()


class TestSamples:
    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("sample.json", json.dumps({"inputs": {"x": floats(2).tolist()}}).encode()),
            ("sample.npy", saved(floats(2))),
            ("a.msgpack", packed(floats(2))),
            ("rows.csv", b"0,1,2,3\n4,5,6,7\n"),
            ("raw.bin", floats(2).tobytes()),
        ],
    )
    def test_a_sample_is_read_as_a_body_of_its_format(
        self, folders: Folders, name: str, body: bytes
    ) -> None:
        source = predicting('assert x.max() > 1, x; return {"y": x}')
        report = check(
            folders.python(source, head=f"\nsample: {name}", files={name: body}), warmup=False
        )
        assert messages(report) == []
        assert report.rows.startswith(f"2 rows of {name}")

    def test_a_picture_is_a_sample_of_a_model_that_takes_pictures(self, folders: Folders) -> None:
        inputs = "[{name: x, dtype: FP32, shape: [2, 2], image: {mode: grey}}]"
        files: dict[str, str | bytes] = {"sample.png": picture()}
        definition = folders.python(
            predicting("return x.reshape(-1, 4)"),
            inputs=inputs,
            head="\nsample: sample.png",
            files=files,
        )
        report = check(definition)
        assert (report.findings, report.rows) == (
            (),
            "1 row of sample.png, and 10 rows made from them",
        )

    @pytest.mark.parametrize(
        ("name", "body", "message"),
        [
            ("s.json", b'{"inputs": {"z": [[1]]}}', "expected inputs 'x'; got 'z'"),
            ("s.npy", saved(floats(2, 5)), "expected FP32[-1,4]; got FP32[2,5]"),
            ("s.json", b"", "expected application/json; got an empty body"),
            (
                "s.doc",
                b"text",
                "expected one of application/json, ",
            ),
            (
                "s.png",
                picture(),
                "got 'image/png', which cannot carry x FP32[-1,4]",
            ),
        ],
    )
    def test_a_sample_that_the_server_would_refuse_is_a_breach(
        self, folders: Folders, name: str, body: bytes, message: str
    ) -> None:
        report = check(
            folders.python(predicting("return x"), head=f"\nsample: {name}", files={name: body})
        )
        assert message in of(report, rules.SAMPLE).message
        assert report.count("breach") == 1, "it is checked on random rows"
        assert "random values" in report.rows

    def test_a_sample_that_the_model_refuses_is_a_breach(self, folders: Folders) -> None:
        files: dict[str, str | bytes] = {"s.csv": b"9,9,9,9\n"}
        source = predicting('assert x.max() < 9, "nine"; return {"y": x}')
        report = check(folders.python(source, head="\nsample: s.csv", files=files))
        assert "AssertionError: nine" in of(report, rules.RAISES).message

    def test_rows_made_from_a_sample_may_be_refused(self, folders: Folders) -> None:
        files: dict[str, str | bytes] = {"s.csv": b"1,2\n"}
        source = predicting(
            'assert (x[:, 0] < x[:, 1]).all(), "turned"; return {"y": x.astype("f4")}'
        )
        outputs = "[{name: y, dtype: FP32, shape: [2]}]"
        definition = folders.python(
            source, inputs=INTEGER, outputs=outputs, head="\nsample: s.csv", files=files
        )
        report = check(definition, warmup=False)
        assert (
            "expected answers to 10 rows made from the sample; got none to 5 of them"
            in of(report, rules.REFUSED).message
        )
        assert report.count("breach") == 0

    def test_rows_that_a_model_mixes_are_noticed_even_with_a_sample_of_one_row(
        self, folders: Folders
    ) -> None:
        files: dict[str, str | bytes] = {"s.csv": b"5,5,5,5\n"}
        report = check(
            folders.python(predicting("return x[::-1]"), head="\nsample: s.csv", files=files)
        )
        assert "got the answer of row 1" in of(report, rules.MIXED).message

    def test_random_rows_are_tame_and_the_same_each_time(self, folders: Folders) -> None:
        body = (
            'assert set(x.flat) <= {0, 1}; return {"y": np.stack([x[:, 0], x[:, 1]] * 2, '
            '1).astype("f4")}'
        )
        assert messages(check(folders.python(predicting(body), inputs=INTEGER))) == []
        texts = (
            'assert all(t.startswith(b"text ") or not t for t in x); return {"y": '
            'np.array([[len(t)] * 4 for t in x], "f4")}'
        )
        assert messages(check(folders.python(predicting(texts), inputs=TEXT, version="2"))) == []

    def test_bf16_is_compared_as_numbers(self, folders: Folders) -> None:
        source = "class Model(torch.nn.Module):\n    def forward(self, x):\n        return {}\n"
        tensors = {"inputs": BF16.format("x"), "outputs": BF16.format("y")}
        assert (
            messages(check(folders.python(source.format("x * (1 + len(x) / 1000)"), **tensors)))
            == []
        )
        report = check(folders.python(source.format("x / len(x)"), version="2", **tensors))
        assert "; got " in of(report, rules.NEIGHBOURS).message


@pytest.mark.parametrize("rest", ["optional: true", "default: 1"])
def test_a_sample_may_leave_out_what_a_request_may(folders: Folders, rest: str) -> None:
    source = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] + inputs.get("bias", 0)}
"""
    tensors = "{name: x, dtype: FP32, shape: [4]}, {name: bias, dtype: FP32, shape: [4], %s}"
    definition = folders.python(
        source,
        head="\nsample: sample.json",
        files={"sample.json": json.dumps({"inputs": {"x": [[1, 2, 3, 4]]}})},
        inputs=f"[{tensors % rest}]",
    )
    assert messages(check(definition)) == []


def test_a_model_that_needs_an_optional_input_is_a_breach(folders: Folders) -> None:
    source = """
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] + inputs["bias"]}
"""
    tensor = "{name: %s, dtype: FP32, shape: [4]%s}"
    inputs = f"[{tensor % ('x', '')}, {tensor % ('bias', ', optional: true')}]"
    report = check(folders.python(source, inputs=inputs))
    assert "input 'bias': expected a model that runs" in of(report, rules.LACKS).message
