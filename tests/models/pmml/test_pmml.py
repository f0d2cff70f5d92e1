"""Files of PMML answer as what they were made of, or are refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.config.pmml.document import read_document
from batcher.config.pmml.fields import MODELS, OTHERS
from batcher.config.single_file import SingleFile
from batcher.errors import ConfigError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.describing.describe import define_single
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

FILES = Path(__file__).parent / "files"
NAMES = sorted(path.stem for path in FILES.glob("*.pmml"))


def served(folders: Folders, file: Path, **settings: Any) -> CheckedModel:
    return folders.load(define_single(SingleFile(file), "m", "1", False), **settings)


def inputs_of(checked: CheckedModel, rows: dict[str, list[Any]]) -> dict[str, Any]:
    """Return rows as a codec would make them."""
    found = {}
    for tensor in checked.spec.inputs:
        values = rows[tensor.name]
        if tensor.datatype.name == "BYTES":
            found[tensor.name] = np.array([*((v or "").encode() for v in values), None], object)
            found[tensor.name] = found[tensor.name][:-1]
        else:
            found[tensor.name] = np.array(values, np.float64)
    return found


def compare(found: dict[str, Any], wanted: dict[str, Any], name: str) -> None:
    """Check answers against those of scikit-learn."""
    if "score" in wanted:
        np.testing.assert_allclose(found["decisionFunction"], wanted["score"], atol=1e-6)
    elif "classes" in wanted:
        assert [each.decode() for each in found["label"]] == wanted["predict"]
        np.testing.assert_allclose(found["probabilities"], wanted["probabilities"], atol=1e-6)
    elif "label" in found:
        assert [each.decode() for each in found["label"]] == list(map(str, wanted["predict"]))
    else:
        np.testing.assert_allclose(found["value"], wanted["predict"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_answers_as_the_model_that_it_was_made_of(folders: Folders, name: str) -> None:
    recorded = json.loads((FILES / f"{name}.json").read_text())
    checked = served(folders, FILES / f"{name}.pmml", max_batch_size=20)
    inputs = inputs_of(checked, recorded["rows"])
    together = answers(checked, **inputs)
    compare(together, recorded["answers"], name)
    for row in range(3):
        alone = answers(checked, **{key: each[row : row + 1] for key, each in inputs.items()})
        for output, values in alone.items():
            if values.dtype.hasobject:
                assert values[0] == together[output][row]
            else:
                np.testing.assert_allclose(values[0], together[output][row], rtol=1e-9)


def test_twelve_kinds_of_models_are_among_the_files() -> None:
    kinds = set()
    for name in NAMES:
        document = read_document(FILES / f"{name}.pmml")
        (model,) = [each for each in document.children if each.tag in MODELS]
        methods = [each.get("multipleModelMethod") for each in model.all("Segmentation")]
        kinds.add((model.tag, model.get("functionName"), *methods))
    assert len(kinds) >= 12, kinds


HEAD = """<?xml version="1.0"?>
<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/>
<DataDictionary>{fields}</DataDictionary>
{more}{model}
</PMML>"""
XYZ = (
    '<DataField name="x" optype="continuous" dataType="double"/>'
    '<DataField name="c" optype="categorical" dataType="string"><Value value="a"/>'
    '<Value value="b"/></DataField>'
    '<DataField name="y" optype="continuous" dataType="double"/>'
    '<DataField name="k" optype="categorical" dataType="string"><Value value="yes"/>'
    '<Value value="no"/></DataField>'
)


def schema(target: str, more: str = "") -> str:
    return (
        f'<MiningSchema><MiningField name="{target}" usageType="target"/>'
        f'<MiningField name="x" {more}/><MiningField name="c" invalidValueTreatment="asIs"/>'
        "</MiningSchema>"
    )


def write(folder: Path, model: str, more: str = "", fields: str = XYZ) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / "m.pmml"
    file.write_text(HEAD.format(fields=fields, model=model, more=more))
    return file


def linear(expression: str) -> str:
    """Return a model whose value is that of `expression`."""
    return (
        f'<RegressionModel functionName="regression">{schema("y")}<LocalTransformations>'
        f'<DerivedField name="d" dataType="double" optype="continuous">{expression}</DerivedField>'
        '</LocalTransformations><RegressionTable intercept="0"><NumericPredictor name="d" '
        'coefficient="1"/></RegressionTable></RegressionModel>'
    )


X = '<FieldRef field="x"/>'
NAN = float("nan")
ROWS = {"x": [1.0, -2.0, NAN, 10.0], "c": ["a", "b", "a", "other"]}
EXPRESSIONS = [
    (X, [1, -2, None, 10]),
    ('<FieldRef field="x" mapMissingTo="7"/>', [1, -2, 7, 10]),
    (f'<Apply function="+">{X}<Constant dataType="double">3</Constant></Apply>', [4, 1, None, 13]),
    (f'<Apply function="abs" mapMissingTo="-1">{X}</Apply>', [1, 2, -1, 10]),
    (
        f'<Apply function="if"><Apply function="isMissing">{X}</Apply>'
        '<Constant dataType="double">5</Constant>'
        f'<Apply function="*">{X}{X}</Apply></Apply>',
        [1, 4, 5, 100],
    ),
    (
        '<NormContinuous field="x" outliers="asExtremeValues" mapMissingTo="0.5">'
        '<LinearNorm orig="0" norm="0"/><LinearNorm orig="4" norm="1"/></NormContinuous>',
        [0.25, 0, 0.5, 1],
    ),
    ('<NormDiscrete field="c" value="a"/>', [1, 0, 1, 0]),
    (
        '<Discretize field="x" defaultValue="9" dataType="double" mapMissingTo="8">'
        '<DiscretizeBin binValue="1"><Interval closure="openClosed" rightMargin="1"/>'
        '</DiscretizeBin><DiscretizeBin binValue="2"><Interval closure="openOpen" leftMargin="1" '
        'rightMargin="10"/></DiscretizeBin></Discretize>',
        [1, 1, 8, 9],
    ),
    (
        '<MapValues outputColumn="o" defaultValue="0" dataType="double"><FieldColumnPair '
        'field="c" column="i"/><InlineTable><row><i>a</i><o>1.5</o></row><row><i>b</i><o>2</o>'
        "</row></InlineTable></MapValues>",
        [1.5, 2, 1.5, 0],
    ),
    (
        '<Apply function="equal"><Apply function="uppercase"><FieldRef field="c"/></Apply>'
        '<Constant dataType="string">A</Constant></Apply>',
        [1, 0, 1, 0],
    ),
    (
        '<Apply function="and"><Apply function="greaterThan"><FieldRef field="x" '
        'mapMissingTo="0"/><Constant>0</Constant></Apply><Apply function="isIn"><FieldRef '
        'field="c"/><Constant dataType="string">a</Constant><Constant dataType="string">b'
        "</Constant></Apply></Apply>",
        [1, 0, 0, 0],
    ),
    (f'<Apply function="max">{X}<Constant dataType="double">0</Constant></Apply>', [1, 0, 0, 10]),
    (f'<Apply function="ln">{X}</Apply>', [0, None, None, np.log(10)]),
]


@pytest.mark.parametrize(("expression", "wanted"), EXPRESSIONS)
def test_derived_fields_are_those_of_the_standard(
    folders: Folders, expression: str, wanted: list[float | None]
) -> None:
    checked = served(folders, write(folders.base, linear(expression)))
    inputs = inputs_of(checked, ROWS)
    outputs, failed = checked.predict(lambda _: inputs, 4)
    assert sorted(failed) == [row for row, each in enumerate(wanted) if each is None]
    for row, each in enumerate(wanted):
        if each is not None:
            assert outputs["value"][row] == pytest.approx(each)


SCORECARD = (
    f'<Scorecard functionName="regression" initialScore="10">{schema("y")}<Characteristics>'
    '<Characteristic><Attribute partialScore="-5"><SimplePredicate field="x" '
    'operator="isMissing"/></Attribute><Attribute partialScore="1"><CompoundPredicate '
    'booleanOperator="and"><SimplePredicate field="x" operator="greaterThan" value="0"/>'
    '<SimpleSetPredicate field="c" booleanOperator="isIn"><Array type="string" n="2">"a" "b"'
    '</Array></SimpleSetPredicate></CompoundPredicate></Attribute><Attribute partialScore="3">'
    "<True/></Attribute></Characteristic></Characteristics></Scorecard>"
)
RULES = (
    f'<RuleSetModel functionName="classification">{schema("k")}<RuleSet defaultScore="no">'
    '<RuleSelectionMethod criterion="firstHit"/><CompoundRule><SimplePredicate field="c" '
    'operator="equal" value="a"/><SimpleRule score="yes"><SimplePredicate field="x" '
    'operator="greaterOrEqual" value="1"/></SimpleRule></CompoundRule><SimpleRule score="yes">'
    '<SimplePredicate field="x" operator="equal" value="10"/></SimpleRule></RuleSet>'
    "</RuleSetModel>"
)


def test_a_scorecard_adds_the_points_of_the_first_attribute_that_holds(folders: Folders) -> None:
    checked = served(folders, write(folders.base, SCORECARD))
    assert answers(checked, **inputs_of(checked, ROWS))["value"].tolist() == [11, 13, 5, 13]


def test_the_first_rule_that_holds_gives_the_label(folders: Folders) -> None:
    checked = served(folders, write(folders.base, RULES))
    found = answers(checked, **inputs_of(checked, ROWS))
    assert found["label"].tolist() == [b"yes", b"no", b"no", b"yes"]


GENERAL = (
    f'<GeneralRegressionModel functionName="regression" modelType="generalizedLinear" '
    f'linkFunction="log">{schema("y")}<ParameterList/><FactorList><Predictor name="c"/>'
    '</FactorList><CovariateList><Predictor name="x"/></CovariateList><PPMatrix><PPCell '
    'parameterName="p1" predictorName="x" value="2"/><PPCell parameterName="p2" predictorName="c" '
    'value="b"/></PPMatrix><ParamMatrix><PCell parameterName="p0" beta="0.5"/><PCell '
    'parameterName="p1" beta="0.1"/><PCell parameterName="p2" beta="-1"/></ParamMatrix>'
    "</GeneralRegressionModel>"
)


def test_a_general_model_multiplies_covariates_and_factors(folders: Folders) -> None:
    checked = served(folders, write(folders.base, GENERAL))
    inputs = inputs_of(checked, {"x": [1.0, -2.0], "c": ["a", "b"]})
    wanted = np.exp([0.5 + 0.1, 0.5 + 0.4 - 1])
    np.testing.assert_allclose(answers(checked, **inputs)["value"], wanted, rtol=1e-12)


STRATEGIES = {
    "none": ["no", "yes", "no", "yes"],
    "lastPrediction": ["no", "yes", "no", "yes"],
    "defaultChild": ["no", "yes", "yes", "yes"],
    "nullPrediction": ["no", "yes", None, "yes"],
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_missing_value_in_a_tree_is_treated_as_the_file_says(
    folders: Folders, strategy: str
) -> None:
    tree = (
        f'<TreeModel functionName="classification" missingValueStrategy="{strategy}" '
        f'noTrueChildStrategy="returnLastPrediction">{schema("k")}<Node id="0" score="no" '
        'defaultChild="2"><True/><Node id="1" score="no"><SimplePredicate field="x" '
        'operator="equal" value="1"/></Node><Node id="2" score="yes"><SimplePredicate field="x" '
        'operator="notEqual" value="1"/></Node></Node></TreeModel>'
    )
    checked = served(folders, write(folders.base, tree))
    inputs = inputs_of(checked, ROWS)
    outputs, failed = checked.predict(lambda _: inputs, 4)
    wanted = STRATEGIES[strategy]
    assert sorted(failed) == [row for row, each in enumerate(wanted) if each is None]
    for row, each in enumerate(wanted):
        assert each is None or outputs["label"][row].decode() == each


def test_a_value_that_is_not_allowed_fails_its_row_or_is_missing(folders: Folders) -> None:
    model = linear('<NormDiscrete field="c" value="a" mapMissingTo="4"/>')
    for treatment, wanted in (("returnInvalid", None), ("asMissing", 4)):
        text = model.replace('Treatment="asIs"', f'Treatment="{treatment}"')
        checked = served(folders, write(folders.base, text))
        inputs = inputs_of(checked, ROWS)
        outputs, failed = checked.predict(lambda _, inputs=inputs: inputs, 4)
        if wanted is None:
            words = "input 'c': expected a value that the model's file allows; got 'other'"
            assert [str(each) for each in failed.values()] == [words]
        else:
            assert (outputs["value"][3], failed) == (wanted, {})


def test_targets_and_outliers_and_replacements_are_applied(folders: Folders) -> None:
    model = (
        linear(X)
        .replace(schema("y"), schema("y", REPLACED))
        .replace(
            "<LocalTransformations>",
            '<Targets><Target field="y" rescaleFactor="2" rescaleConstant="0.4" '
            'castInteger="round"/></Targets><LocalTransformations>',
        )
    )
    checked = served(folders, write(folders.base, model))
    assert answers(checked, **inputs_of(checked, ROWS))["value"].tolist() == [2, 0, 6, 12]


REPLACED = 'missingValueReplacement="3" outliers="asExtremeValues" lowValue="0" highValue="6"'
FUNCTION = (
    '<TransformationDictionary><DefineFunction name="twice" optype="continuous"><ParameterField '
    'name="p"/><Apply function="*"><FieldRef field="p"/><Constant dataType="double">2</Constant>'
    '</Apply></DefineFunction><DerivedField name="g" dataType="double" optype="continuous">'
    '<Apply function="twice"><FieldRef field="x"/></Apply></DerivedField>'
    "</TransformationDictionary>"
)


def test_functions_and_fields_of_the_file_are_known_to_its_model(folders: Folders) -> None:
    checked = served(folders, write(folders.base, linear('<FieldRef field="g"/>'), FUNCTION))
    inputs = inputs_of(checked, {"x": [1.0, 4.0], "c": ["a", "a"]})
    assert answers(checked, **inputs)["value"].tolist() == [2, 8]


REFUSED = [
    (linear(f'<Apply function="erf">{X}</Apply>'), "got Apply in line 4: the function erf"),
    (linear('<Lag field="x"/>'), "got Lag in line 4"),
    (RULES.replace("firstHit", "longest"), "got RuleSet in line 4: the criterion longest"),
    (
        '<TreeModel functionName="regression" missingValueStrategy="aggregateNodes">'
        f'{schema("y")}<Node score="1"><True/></Node></TreeModel>',
        "got TreeModel in line 4: missingValueStrategy aggregateNodes",
    ),
    (
        f'<RegressionModel functionName="regression" normalizationMethod="other">{schema("y")}'
        '<RegressionTable intercept="0"/></RegressionModel>',
        "the normalization other",
    ),
]


@pytest.mark.parametrize(("model", "words"), REFUSED)
def test_what_is_not_served_is_refused_by_its_name_and_line(
    folders: Folders, model: str, words: str
) -> None:
    with pytest.raises(ModelLoadError, match=words):
        served(folders, write(folders.base, model))


@pytest.mark.parametrize("kind", OTHERS)
def test_a_kind_of_model_that_is_not_served_is_named(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, f'<{kind} functionName="regression">{schema("y")}</{kind}>')
    with pytest.raises(ConfigError, match=rf"expected one model that can be scored.*got {kind} in"):
        define_single(SingleFile(file), "m", "1", False)


BOMB = '<!DOCTYPE PMML [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><PMML>&b;</PMML>'
EXTERNAL = '<!DOCTYPE PMML [<!ENTITY x SYSTEM "file:///etc/passwd">]><PMML>&x;</PMML>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "expected no document type and no entities; got one"),
        (EXTERNAL, "expected no document type and no entities; got one"),
        ('<!DOCTYPE PMML SYSTEM "x.dtd"><PMML/>', "expected no document type"),
        ("<a>" * 5000, "expected at most 4096 levels; got more"),
        ("", "expected PMML, an XML file"),
        ("{}", "expected PMML, an XML file"),
        ("<html/>", "expected a file whose element is PMML; got html"),
        ("<PMML/>", "expected one model that can be scored"),
    ],
)
def test_what_xml_can_do_besides_a_tree_is_refused_at_once(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "m.pmml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        define_single(SingleFile(file), "m", "1", False)
