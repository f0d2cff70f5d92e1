"""A model with hooks: each breach of a hook is found, and hooks that keep the contract pass."""

from __future__ import annotations

import pytest

from batcher.app.checking import rules
from tests.support.checking import check, hook, of, predicting
from tests.support.model_folders import Folders


class TestHooks:
    def test_hooks_that_keep_the_contract_are_left_in_peace(self, folders: Folders) -> None:
        hooks = hook("preprocess", 'return {"x": values["x"] + 1}') + hook(
            "postprocess", 'return {"y": values["raw"] - 1}'
        )
        assert check(folders.python(predicting('return {"raw": x}', hooks))).findings == ()

    def test_preprocess_may_make_several_rows_of_one(self, folders: Folders) -> None:
        hooks = hook("preprocess", 'return {"x": np.repeat(values["x"], 2, axis=0)}')
        report = check(folders.python(predicting('return {"y": x}', hooks)), warmup=False)
        assert report.findings == ()

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (
                'raise KeyError("vocabulary")',
                "expected a mapping of name to array; got KeyError: 'vocabulary' (code.py:",
            ),
            ("return None", "expected a mapping of name to array; got NoneType"),
            (
                'values["x"][...] = 0; return values',
                "got ValueError: assignment destination is read-only",
            ),
            (
                'return {"x": values["x"], "n": np.zeros(5)}',
                "expected arrays of equally many rows, at least one; got x [1,4], n [5]",
            ),
            ("return {}", "expected arrays of equally many rows, at least one; got nothing"),
            (
                'return {"x": values["x"][:1]}',
                "expected 3 rows of a request of 3, as many as of its rows one by one; got 1",
            ),
        ],
    )
    def test_a_preprocess_that_breaks_the_contract(
        self, folders: Folders, body: str, message: str
    ) -> None:
        report = check(folders.python(predicting('return {"y": x}', hook("preprocess", body))))
        assert message in of(report, rules.PREPROCESS).message

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (
                'raise KeyError("labels")',
                "expected a mapping of name to array; got KeyError: 'labels'",
            ),
            ("return [1, 2]", "expected 1 outputs; got 2"),
            ('return {"z": values["y"]}', "expected output 'y'; got 'z'"),
            (
                'return {"y": values["y"].astype("c8")}',
                "output 'y': expected FP32[-1,4]; got complex64[1,4]",
            ),
            ('return {"y": values["y"][:1]}', "3 rows in, 1 rows out in output 'y'"),
        ],
    )
    def test_a_postprocess_that_breaks_the_contract(
        self, folders: Folders, body: str, message: str
    ) -> None:
        report = check(folders.python(predicting('return {"y": x}', hook("postprocess", body))))
        assert message in of(report, rules.POSTPROCESS).message

    def test_rows_are_counted_before_postprocess(self, folders: Folders) -> None:
        report = check(
            folders.python(
                predicting(
                    'return {"raw": x[:1]}', hook("postprocess", 'return {"y": values["raw"]}')
                )
            )
        )
        assert "expected 3 rows out, as many as in; got raw [1,4]" in of(report, rules.ROWS).message

    def test_rows_that_are_mixed_up_behind_hooks_are_seen(self, folders: Folders) -> None:
        report = check(
            folders.python(
                predicting(
                    'return {"raw": x[::-1]}', hook("postprocess", 'return {"y": values["raw"]}')
                )
            )
        )
        assert of(report, rules.MIXED).where == "output 'y', batch sizes 2, 3, 7, 8"
