"""A small faulty model for every rule; a finding names what was expected and what the model did."""

from __future__ import annotations

import re

import pytest

from batcher.app.checking import rules
from batcher.app.checking.check import check_version
from batcher.app.checking.contract import Rule
from batcher.config.model_settings import ModelSettings
from tests.support.checking import check, of, predicting
from tests.support.model_folders import Folders

TWO = "[{name: y, dtype: FP32, shape: [4]}, {name: z, dtype: INT64, shape: []}]"
INTEGER = "[{name: x, dtype: INT64, shape: [2]}]"
TEXT = "[{name: x, dtype: BYTES, shape: []}]"
FREE = "[{name: x, dtype: FP32, shape: [-1]}]"
BF16 = "[{{name: {}, dtype: BF16, shape: [4]}}]"


GOOD = [
    pytest.param('return {"y": x * 2}', id="arrays"),
    pytest.param("return torch.from_numpy(x) * 2", id="a tensor"),
    pytest.param('x *= 2; return {"y": x}', id="written into its inputs"),
    pytest.param(
        'y = x * 2; y[:, 0] = len(x) * 1e-4 + x[:, 0]; return {"y": y}',
        id="rounded otherwise at each size",
    ),
    pytest.param('y = x.copy(); y[:, 0] = x[:, 0] > 0.5; return {"y": y}', id="steps"),
]


@pytest.mark.parametrize("body", GOOD)
def test_a_model_that_keeps_the_contract_is_left_in_peace(folders: Folders, body: str) -> None:
    report = check(folders.python(predicting(body)))
    assert report.findings == ()
    assert [timing.rows for timing in report.timings] == [1, 2, 3, 7, 8]
    assert "random values" in report.rows


BROKEN = [
    (
        rules.RAISES,
        'assert len(x) != 3, "three"; return {"y": x}',
        "predict, batch size 3",
        "AssertionError: three (code.py:",
    ),
    (
        rules.RAISES_ALWAYS,
        'raise SystemExit("bye")',
        "predict, batch sizes 1, 2, 3, 7, 8",
        "expected outputs.*got SystemExit: bye",
    ),
    (
        rules.MISSING,
        'return {"z": x}',
        "output 'y', batch sizes 1, 2, 3, 7, 8",
        "expected output 'y'; got 'z'",
    ),
    (
        rules.ROWS,
        'return {"y": x[:1]}',
        "output 'y', batch sizes 2, 3, 7, 8",
        "2 rows in, 1 rows out",
    ),
    (rules.ROWS, 'return {"y": x.squeeze()}', "output 'y', batch size 1", "1 rows in, 4 rows out"),
    (
        rules.RAISES_ALWAYS,
        "return None",
        "predict, batch sizes 1, 2",
        "got None: return a dict such as",
    ),
    (rules.ROWS, 'return {"y": {1}}', "output 'y', batch sizes 1, 2", "1 rows; got set"),
    (rules.ROWS, 'return {"y": "text"}', "output 'y', batch sizes 1, 2", "1 rows in, a scalar"),
    (
        rules.DTYPE,
        'return {"y": x.astype("c8")}',
        "output 'y'",
        r"expected FP32\[-1,4\]; got complex64\[1,4\]: take `.real`",
    ),
    (
        rules.SHAPE,
        'return {"y": x[:, :3]}',
        "output 'y'",
        r"expected FP32\[-1,4\]; got FP32\[1,3\]",
    ),
    (rules.RAISES_ALWAYS, "return x, x", "predict, batch sizes 1, 2", "expected 1 outputs; got 2"),
    (
        rules.MIXED,
        'return {"y": x[::-1]}',
        "output 'y', batch sizes 2, 3, 7, 8",
        "row 0 .* its own answer; got the answer of row 1",
    ),
    (
        rules.MIXED,
        'return {"y": np.sort(x, axis=0)[:, [0]] * 0 + x[:1]}',
        "output 'y'",
        "row 1 .* its own .*; got .* row 0",
    ),
    (
        rules.NEIGHBOURS,
        'e = np.exp(x); return {"y": e / e.sum(0)}',
        "output 'y', batch sizes 2",
        r"expected .* alone, 1 at \[\d\]; got 0",
    ),
    (
        rules.NEIGHBOURS,
        "return torch.nn.functional.batch_norm(torch.from_numpy(x), None, None, training=True) if "
        "len(x) > 1 else x",
        "output 'y', batch sizes 2, 3, 7, 8",
        r"expected row \d .* alone, .*; got ",
    ),
    (
        rules.NEIGHBOURS,
        'return {"y": x * (np.nan if len(x) == 7 else 1)}',
        "batch size 7",
        "; got nan",
    ),
    (
        rules.DRIFT,
        'return {"y": x + len(x) * 2e-3}',
        "output 'y', batch sizes 2, 3, 7, 8",
        "expected row .*; got ",
    ),
    (
        rules.CHANGES,
        "return torch.dropout(torch.from_numpy(x) + 1, 0.5, True)",
        "output 'y', batch sizes 1",
        "alike in two runs.*; got",
    ),
    (
        rules.CHANGES,
        'STATE["n"] = STATE.get("n", 0) + 1; return {"y": x + STATE["n"]}',
        "batch sizes 1",
        "expected.*; got",
    ),
    (
        rules.NON_FINITE,
        'x[:, 1] = np.inf; return {"y": x}',
        "output 'y'",
        "expected finite numbers; got .* in 11 of 11 rows",
    ),
    (rules.EXTRA, 'return {"y": x, "more": x}', "output 'more'", "expected 'y' alone; got 'more'"),
    (
        rules.BLIND,
        'return {"y": x * 0}',
        "outputs",
        "expected answers that differ; got the same for all of 11",
    ),
    (
        rules.WARMUP,
        'assert x.any(), "blank"; return {"y": x}',
        "warm-up",
        "expected outputs for rows of zeros; got .*blank",
    ),
    (
        rules.SHARED,
        'out = STATE.setdefault("out", np.zeros((64, 4), "f4"))[: len(x)]; out[...] = x; return '
        '{"y": out}',
        "predict",
        "expected new memory for each batch; got memory",
    ),
]


@pytest.mark.parametrize(("rule", "body", "where", "message"), BROKEN)
def test_each_breach_says_where_it_is_what_was_expected_and_what_came(
    folders: Folders, rule: Rule, body: str, where: str, message: str
) -> None:
    report = check(folders.python(predicting(body)))
    finding = of(report, rule)
    assert where in finding.where
    assert re.search(message.replace("(code", r"\(code"), finding.message, re.DOTALL)
    assert rule.why
    assert rule.mend
    assert [
        other.rule
        for other in report.findings
        if other.level == "breach" and other.rule is not rule
    ] == []


def test_all_breaches_are_told_and_breaches_first(folders: Folders) -> None:
    source = predicting(
        'return {"w": x, "y": x.astype("c8"), "z": (x[:, 0] * 1000).astype("i8")[::-1]}'
    )
    report = check(folders.python(source, outputs=TWO))
    assert [finding.rule for finding in report.findings] == [rules.DTYPE, rules.MIXED, rules.EXTRA]
    assert (report.count("breach"), report.count("warning"), report.count("note")) == (2, 0, 1)
    assert "'z'" in of(report, rules.MIXED).where


@pytest.mark.parametrize(
    "body",
    [
        'return {"y": x + np.random.rand(*x.shape).astype("f4")}',
        'STATE["n"] = STATE.get("n", 0) + 1; return {"y": x + STATE["n"] // 2}',
        'STATE["seen"] = STATE.get("seen", False) or len(x) > 3; return {"y": x + STATE["seen"]}',
    ],
    ids=["at random", "every other time", "once and for all"],
)
def test_a_model_that_changes_its_answers_is_not_blamed_for_mixing_rows(
    folders: Folders, body: str
) -> None:
    report = check(folders.python(predicting(body)))
    assert [finding.rule for finding in report.findings] == [rules.CHANGES]


def test_a_missing_row_at_the_largest_size_alone_is_seen(folders: Folders) -> None:
    report = check(folders.python(predicting('return {"y": x[:15]}')), max_batch_size=16)
    assert of(report, rules.ROWS).where == "output 'y', batch size 16"
    assert [timing.rows for timing in report.timings] == [1, 2, 3, 7, 16]


def test_a_batch_of_one_row_is_all_there_is_where_no_more_may_wait(folders: Folders) -> None:
    report = check(folders.python(predicting('return {"y": x[:1]}')), max_batch_size=1)
    assert report.findings == ()
    assert [timing.rows for timing in report.timings] == [1]


def test_a_definition_that_is_wrong_is_a_breach_with_its_place(folders: Folders) -> None:
    definition = folders.python(predicting("return x"))
    (definition.folder / "model.yaml").write_text("format: python\nclas: code:Model\n")
    finding = of(check(definition), rules.DEFINITION)
    assert "model.yaml:2" in finding.message
    assert "class" in finding.message


@pytest.mark.parametrize(
    ("source", "complaint"),
    [("raise OSError('gone')", "got OSError: gone"), ("def f(:", "got SyntaxError")],
)
def test_a_model_that_does_not_load_is_a_breach_with_the_reason(
    folders: Folders, source: str, complaint: str
) -> None:
    report = check(folders.python(source))
    assert "expected the model to load on device cpu; " in of(report, rules.LOAD).message
    assert complaint in of(report, rules.LOAD).message
    assert (len(report.findings), report.timings) == (1, ())


def test_whoever_interrupts_a_check_is_not_told_of_a_breach(folders: Folders) -> None:
    with pytest.raises(KeyboardInterrupt):
        check(folders.python("raise KeyboardInterrupt"))


@pytest.mark.parametrize("name", ["v2", "1.0", "latest"])
def test_a_folder_that_looks_like_a_version_and_is_none_is_a_warning(
    folders: Folders, name: str
) -> None:
    report = check(folders.python(predicting("return x"), version=name))
    assert (
        f"expected a version folder that is named by a number; got {name!r}"
        in of(report, rules.FOLDER).message
    )
    assert report.count("breach") == 0


def test_a_warm_up_that_is_switched_off_is_not_tried(folders: Folders) -> None:
    body = 'assert x.any(), "blank"; return {"y": x}'
    assert check(folders.python(predicting(body)), warmup=False).findings == ()


def test_what_is_told_at_start_is_kept(folders: Folders) -> None:
    source = (
        "class Model(torch.nn.Module):\n    def forward(self, x):\n        return sum([x] * 30)\n"
    )
    assert re.match(
        r"hint: \d+ operators a batch", of(check(folders.python(source)), rules.HINT).message
    )
    report = check(
        folders.python(
            predicting("return x.sum(1, keepdims=True) + np.zeros(4, 'f4')"), inputs=FREE
        )
    )
    hints = [each.message for each in report.findings if each.rule is rules.HINT]
    assert any("free axes of x" in text for text in hints)
    assert any("different sizes of x share no batch" in text for text in hints)
    assert "the free axes of x taken as 3" in report.rows


def test_each_hook_that_keeps_what_it_writes_is_told(folders: Folders) -> None:
    source = (
        "class Model:\n"
        "    def preprocess(self, inputs):\n        self.x = inputs['x'] + 1\n        "
        "return {'x': self.x}\n"
        "    def predict(self, inputs):\n        return {'y': inputs['x']}\n"
        "    def postprocess(self, outputs):\n        self.y = outputs['y'] + 1\n        "
        "return {'y': self.y}\n"
    )
    report = check(folders.python(source))
    hints = [each.message for each in report.findings if each.rule is rules.HINT]
    assert any("preprocess writes into self.x" in text for text in hints)
    assert any("postprocess writes into self.y" in text for text in hints)


def test_sizes_that_preprocess_makes_equal_keep_no_requests_apart(folders: Folders) -> None:
    source = (
        "class Model:\n"
        "    def preprocess(self, inputs): return {'x': inputs['x'].sum(1, keepdims=True)}\n"
        "    def predict(self, inputs): return {'y': np.repeat(inputs['x'], 4, axis=1)}\n"
    )
    report = check(folders.python(source, inputs=FREE))
    assert not [each for each in report.findings if "share no batch" in each.message]


def test_batches_that_cost_more_a_row_than_rows_alone_are_told_of(folders: Folders) -> None:
    class Clock:
        now = 0.0
        rows = 0

        def __call__(self) -> float:
            self.now += 0.001 * self.rows**2
            return self.now

    clock = Clock()
    definition = folders.python(predicting("return x"))

    def progress(text: str) -> None:
        clock.rows = int(text.rpartition(" ")[2]) if "batch size" in text else 0

    settings = ModelSettings(device="cpu", max_batch_size=8, warmup=False)
    report = check_version("m", "1", definition.folder, settings, progress, clock)
    assert (
        of(report, rules.SLOWER).message
        == "expected a row to cost at most the 1 ms that it costs alone; got 8 ms"
    )
    assert [round(timing.seconds, 3) for timing in report.timings] == [
        0.001,
        0.004,
        0.009,
        0.049,
        0.064,
    ]


def test_an_output_of_bytes_that_holds_a_number_has_another_dtype(folders: Folders) -> None:
    definition = folders.python(
        predicting('return {"y": np.array([b"text"] * (len(x) - 1) + [5], object)}'),
        outputs=TEXT.replace("x", "y"),
    )
    report = check(definition, warmup=False)
    assert of(report, rules.DTYPE).message.endswith("expected BYTES; got int 5")


@pytest.mark.parametrize(
    ("rows", "rule", "message"),
    [
        ("[error for row in x]", rules.FAILED, "expected answers to 11 rows; 11 failed: KeyError"),
        (
            "[error if row[0] > 0.5 else row for row in x]",
            rules.FAILED_ROWS,
            r"expected answers to 11 rows; \d failed: KeyError: 'no'",
        ),
    ],
    ids=["all rows", "some rows"],
)
def test_a_model_that_answers_no_row_of_its_sample_does_not_pass(
    folders: Folders, rows: str, rule: Rule, message: str
) -> None:
    report = check(folders.python(predicting(f'error = KeyError("no"); return {{"y": {rows}}}')))
    finding = of(report, rule)
    assert re.match(message, finding.message)
    assert report.count("breach") == (rule is rules.FAILED)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "not declared"])
def test_rows_of_unequal_length_keep_the_contract_and_are_better_declared(
    folders: Folders, declared: bool
) -> None:
    more = ", ragged: true" if declared else ""
    definition = folders.python(
        predicting('return {"y": [row[: 1 + (row[0] > 0.5)] for row in x]}'),
        outputs=f"[{{name: y, dtype: FP32, shape: [-1]{more}}}]",
    )
    report = check(definition)
    assert [finding.rule for finding in report.findings] == ([] if declared else [rules.RAGGED])


def test_outputs_that_cannot_be_cut_to_the_lengths_of_rows_break_the_contract(
    folders: Folders,
) -> None:
    definition = folders.python(
        predicting('return {"y": x[:, ::2]}'),
        inputs="[{name: x, dtype: FP32, shape: [-1], pad: 0, warmup_shape: [4]}]",
        outputs="[{name: y, dtype: FP32, shape: [-1], unpad: true}]",
    )
    (finding,) = check(definition).findings
    assert finding.rule is rules.LENGTHS
    assert "expects the length of the batch, 4, on axis 1" in finding.message


@pytest.mark.parametrize(
    ("axes", "body", "output", "message"),
    [
        ("[-1, -1]", "x.transpose(0, 2, 1)", "unpad", "transpose the output"),
        ("[-1]", "x", "ragged", "or write `unpad: true` in place of `ragged: true`"),
    ],
)
@pytest.mark.parametrize("warmup", [True, False])
def test_outputs_of_rows_of_other_lengths_are_checked_without_warmup_as_well(
    folders: Folders, axes: str, body: str, output: str, message: str, warmup: bool
) -> None:
    definition = folders.python(
        predicting(f'return {{"y": {body}}}'),
        inputs=f"[{{name: x, dtype: FP32, shape: {axes}, pad: 0}}]",
        outputs=f"[{{name: y, dtype: FP32, shape: {axes}, {output}: true}}]",
    )
    finding = of(check(definition, warmup=warmup), rules.LENGTHS)
    assert message in finding.message


def test_what_can_be_cast_keeps_the_contract(folders: Folders) -> None:
    report = check(folders.python(predicting('return {"y": x.astype("f8").tolist()}')))
    assert report.findings == ()
