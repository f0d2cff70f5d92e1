"""What PMML says of missing values, truths, votes and labels, held against worked examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batcher.errors import ModelLoadError
from tests.models.pmml.test_pmml import RULES, XYZ, X, inputs_of, linear, schema, served, write
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders

NAN = float("nan")
LAST = 'noTrueChildStrategy="returnLastPrediction"'
SIMPLE = '<SimplePredicate field="{}" operator="{}" value="{}"/>'


def answered(folders: Folders, model: str, fields: str = XYZ, **rows: list[Any]) -> list[Any]:
    """Return what `model` says of each row, None where it says nothing."""
    checked = served(folders, write(folders.base, model, fields=fields))
    inputs, count = inputs_of(checked, rows), len(next(iter(rows.values())))
    outputs, failed = checked.predict(lambda _: inputs, count)
    found = outputs["label" if "label" in outputs else "value"].tolist()
    texts = [each.decode() if isinstance(each, bytes) else each for each in found]
    return [None if row in failed else each for row, each in enumerate(texts)]


def tree(node: str, kind: str = "classification", more: str = "", target: str = "k") -> str:
    return f'<TreeModel functionName="{kind}" {more}>{schema(target)}{node}</TreeModel>'


def node(score: str, condition: str = "<True/>", *children: str) -> str:
    return f'<Node score="{score}">{condition}{"".join(children)}</Node>'


def mining(method: str, *segments: str, kind: str = "classification", target: str = "k") -> str:
    return (
        f'<MiningModel functionName="{kind}">{schema(target)}<Segmentation '
        f'multipleModelMethod="{method}">{"".join(segments)}</Segmentation></MiningModel>'
    )


def segment(model: str, condition: str = "<True/>") -> str:
    return f"<Segment>{condition}{model}</Segment>"


def test_a_truth_is_a_text_of_clients_and_of_conditions(folders: Folders) -> None:
    fields = XYZ.replace('"x" optype="continuous" dataType="double"', '"x" dataType="boolean"')
    model = tree(node("no", "<True/>", node("yes", SIMPLE.format("x", "equal", "true"))))
    model = model.replace("<TreeModel ", '<TreeModel noTrueChildStrategy="returnLastPrediction" ')
    found = answered(folders, model, fields, x=["true", "false", "maybe", ""], c=["a"] * 4)
    assert found == ["yes", "no", None, "no"]


def test_a_comparison_in_a_derived_field_is_a_truth(folders: Folders) -> None:
    field = (
        '<LocalTransformations><DerivedField name="d" dataType="boolean" optype="categorical">'
        f'<Apply function="greaterThan">{X}<Constant dataType="double">1</Constant></Apply>'
        "</DerivedField></LocalTransformations>"
    )
    inner = node("yes", SIMPLE.format("d", "equal", "true"))
    model = tree(field + node("no", "<True/>", inner), more=LAST)
    assert answered(folders, model, x=[2.0, 0.0], c=["a"] * 2) == ["yes", "no"]


def test_the_score_of_a_node_is_its_label_and_not_the_likeliest_class(folders: Folders) -> None:
    counts = (
        '<ScoreDistribution value="yes" recordCount="9"/>'
        '<ScoreDistribution value="no" recordCount="1"/>'
    )
    model = tree(node("no", f"<True/>{counts}"))
    assert answered(folders, model, x=[1.0], c=["a"]) == ["no"]
    assert answered(folders, model.replace('score="no"', ""), x=[1.0], c=["a"]) == ["yes"]


def test_a_model_without_an_answer_votes_for_no_class(folders: Folders) -> None:
    unsure = tree(node("yes", SIMPLE.format("x", "greaterThan", "0")))
    sure = tree(node("no"))
    model = mining("majorityVote", segment(unsure), segment(unsure), segment(sure))
    assert answered(folders, model, x=[1.0, -1.0], c=["a"] * 2) == ["yes", None]
    model = mining("majorityVote", segment(unsure), segment(sure))
    assert answered(folders, model, x=[-1.0], c=["a"]) == ["no"]
    strict = '<Segmentation missingPredictionTreatment="returnMissing" '
    model = model.replace("<Segmentation ", strict)
    assert answered(folders, model, x=[1.0, -1.0], c=["a"] * 2) == ["yes", None]


@pytest.mark.parametrize("method", ["median", "max", "average", "sum"])
def test_numbers_have_no_middle_where_one_of_them_is_missing(folders: Folders, method: str) -> None:
    unsure = tree(node("5", SIMPLE.format("x", "greaterThan", "0")), "regression", target="y")
    sure = tree(node("5"), "regression", target="y")
    model = mining(method, segment(unsure), segment(sure), kind="regression", target="y")
    both = 10 if method == "sum" else 5
    assert answered(folders, model, x=[1.0, -1.0], c=["a"] * 2) == [both, None]


@pytest.mark.parametrize(("method", "wanted"), [("average", [3, 4]), ("sum", [3, 8])])
def test_a_segment_says_nothing_of_rows_that_are_not_its_own(
    folders: Folders, method: str, wanted: list[float]
) -> None:
    positive = tree(node("5", SIMPLE.format("x", "greaterThan", "0")), "regression", target="y")
    always = tree(node("3"), "regression", target="y")
    own = segment(positive, SIMPLE.format("x", "greaterThan", "0"))
    model = mining(method, own, segment(always), kind="regression", target="y")
    assert answered(folders, model, x=[-1.0, 1.0], c=["a"] * 2) == wanted


CLUSTERS = (
    f'<ClusteringModel functionName="clustering" modelClass="centerBased">{schema("y")}'
    '<ComparisonMeasure kind="distance"><squaredEuclidean/></ComparisonMeasure>'
    '<ClusteringField field="x"/><ClusteringField field="w"/>'
    '<Cluster id="far"><Array>9 9</Array></Cluster><Cluster id="near"><Array>0 9</Array></Cluster>'
    "</ClusteringModel>"
).replace('<MiningField name="c"', '<MiningField name="w"')
W = '<DataField name="w" optype="continuous" dataType="double"/>'


def test_the_nearest_cluster_is_found_by_the_values_that_are_known(folders: Folders) -> None:
    found = answered(folders, CLUSTERS, XYZ + W, x=[1.0, NAN, 1.0, NAN], w=[NAN, 1.0, 9.0, NAN])
    assert found == ["near", "far", "near", None]


NEIGHBORS = (
    f'<NearestNeighborModel functionName="regression" numberOfNeighbors="1">{schema("y")}'
    '<TrainingInstances><InstanceFields><InstanceField field="x" column="x"/>'
    '<InstanceField field="w" column="w"/><InstanceField field="y" column="y"/></InstanceFields>'
    "<InlineTable><row><x>9</x><w>9</w><y>1</y></row><row><x>0</x><w>9</w><y>2</y></row>"
    '</InlineTable></TrainingInstances><ComparisonMeasure kind="distance"><euclidean/>'
    '</ComparisonMeasure><KNNInputs><KNNInput field="x"/><KNNInput field="w"/></KNNInputs>'
    "</NearestNeighborModel>"
).replace('<MiningField name="c"', '<MiningField name="w"')
VECTORS = (
    f'<SupportVectorMachineModel functionName="classification">{schema("k")}'
    '<LinearKernelType/><VectorDictionary><VectorFields><FieldRef field="x"/></VectorFields>'
    '<VectorInstance id="v"><Array>1</Array></VectorInstance></VectorDictionary>'
    '<SupportVectorMachine targetCategory="yes" alternateTargetCategory="no"><SupportVectors>'
    '<SupportVector vectorId="v"/></SupportVectors><Coefficients absoluteValue="0">'
    '<Coefficient value="1"/></Coefficients></SupportVectorMachine></SupportVectorMachineModel>'
)


def test_neighbours_and_vectors_have_no_answer_for_values_that_are_missing(
    folders: Folders,
) -> None:
    found = answered(folders, NEIGHBORS, XYZ + W, x=[1.0, NAN], w=[NAN, NAN])
    assert found == [2, None]
    assert answered(folders, VECTORS, x=[-1.0, 1.0, NAN], c=["a"] * 3) == ["yes", "no", None]


def test_texts_of_a_set_stand_in_quotes_where_they_have_blanks(folders: Folders) -> None:
    texts = """O'Brien "New York" "a \\"b\\"" plain"""
    chosen = f'<Array type="string">{texts}</Array>'
    within = f'<SimpleSetPredicate field="c" booleanOperator="isIn">{chosen}</SimpleSetPredicate>'
    model = tree(node("no", "<True/>", node("yes", within)), more=LAST)
    names = ["O'Brien", "New York", 'a "b"', "plain", "York"]
    found = answered(folders, model, x=[0.0] * 5, c=names)
    assert found == ["yes", "yes", "yes", "yes", "no"]


def test_a_float_is_compared_with_a_limit_that_is_rounded_likewise(folders: Folders) -> None:
    fields = XYZ.replace('"x" optype="continuous" dataType="double"', '"x" dataType="float"')
    # 0.7 as a float is less than 0.7.
    model = tree(node("yes", "<True/>", node("no", SIMPLE.format("x", "lessThan", "0.7"))))
    more = 'noTrueChildStrategy="returnLastPrediction" '
    model = model.replace("<TreeModel ", f"<TreeModel {more}")
    assert answered(folders, model, fields, x=[0.7, 0.6], c=["a"] * 2) == ["yes", "no"]
    bound = '"x" dataType="float"><Interval closure="closedClosed" rightMargin="0.1"/></DataField>'
    fields = fields.replace('"x" dataType="float"/>', bound)
    assert answered(folders, linear(X), fields, x=[0.1, 0.2], c=["a"] * 2)[1] is None
    assert answered(folders, linear(X), fields, x=[0.1], c=["a"]) == [float(np.float32(0.1))]


def test_a_table_may_have_a_namespace_and_numbers_for_keys(folders: Folders) -> None:
    table = (
        '<MapValues xmlns:data="http://example.com/table" outputColumn="data:out" '
        'dataType="double"><FieldColumnPair field="x" column="data:in"/><InlineTable>'
        "<row><data:in>1.0</data:in><data:out>10</data:out></row><row><data:in>2</data:in>"
        "<data:out>20</data:out></row><row><data:in>3</data:in></row></InlineTable></MapValues>"
    )
    found = answered(folders, linear(table), x=[1.0, 2.0, 3.0, NAN], c=["a"] * 4)
    assert found == [10, 20, None, None]


def test_classes_are_those_that_a_target_may_have_or_that_the_model_names(
    folders: Folders,
) -> None:
    gone = XYZ.replace(
        '<Value value="no"/>', '<Value value="no"/><Value value="?" property="missing"/>'
    )
    model = tree(node("no", "<True/>", node("yes", SIMPLE.format("x", "greaterThan", "0"))))
    checked = served(folders, write(folders.base, model, fields=gone))
    assert checked.spec.outputs[1].shape == (2,)
    none = XYZ.replace('<Value value="yes"/><Value value="no"/>', "")
    assert answered(folders, model, none, x=[1.0], c=["a"]) == ["yes"]


def test_a_value_that_must_be_there_fails_its_row(folders: Folders) -> None:
    model = linear('<FieldRef field="x" mapMissingTo="4"/>')
    assert answered(folders, model, x=[1.0, NAN], c=["a"] * 2) == [1, 4]
    model = model.replace(schema("y"), schema("y", 'missingValueTreatment="returnInvalid"'))
    assert answered(folders, model, x=[1.0, NAN], c=["a"] * 2) == [1, None]


SUM = f'<Apply function="sum">{X}<Aggregate field="x" function="sum"/></Apply>'
GENERAL = (
    '<GeneralRegressionModel functionName="regression" modelType="generalizedLinear" '
    f'linkFunction="log" offsetVariable="x">{schema("y")}<ParameterList/></GeneralRegressionModel>'
)
POINT = '<LinearNorm orig="1" norm="2"/>'
ORDERED = (
    f'<RegressionModel functionName="classification" normalizationMethod="logit">{schema("k")}'
    '<RegressionTable targetCategory="yes" intercept="1"/></RegressionModel>'
)
CHAIN = mining("modelChain", segment(tree(node("no")), SIMPLE.format("x", "equal", "1")))
SKIPPED = mining("average", segment(tree(node("no")))).replace(
    "<Segmentation ", '<Segmentation missingPredictionTreatment="skipSegment" '
)
REFUSED = [
    (linear(SUM), XYZ, "got Aggregate in line 4"),
    (GENERAL, XYZ, "got GeneralRegressionModel in line 4: offsetVariable"),
    (CHAIN, XYZ, "got Segment in line 4: a condition in a modelChain"),
    (SKIPPED, XYZ, "got Segmentation in line 4: missingPredictionTreatment skipSegment"),
    (tree(node("no", "<True/>", "<Regression/>")), XYZ, "got Regression in line 4"),
    (linear(X), XYZ.replace('"double"', '"date"', 1), "got DataField in line 3: dataType date"),
    (
        ORDERED,
        XYZ.replace('"k" optype="categorical"', '"k" optype="ordinal"'),
        "got RegressionModel in line 4: an ordinal target",
    ),
]


EMPTY = '<CompoundPredicate booleanOperator="and"/>'
REFUSED += [
    (tree(node("maybe")), XYZ, "got Node in line 4: 'maybe', which is no class of the target"),
    (tree(node("no", SIMPLE.format("z", "equal", "1"))), XYZ, "got 'z', which is neither an input"),
    (tree(node("no", EMPTY)), XYZ, "got CompoundPredicate in line 4: no condition in it"),
    (RULES.replace('"yes"', '"maybe"'), XYZ, "got SimpleRule in line 4: 'maybe', which is no"),
    (mining("average"), XYZ, "got Segmentation in line 4: no Segment in it"),
    (ORDERED.replace("RegressionTable", "Extension"), XYZ, "no RegressionTable in it"),
    (
        linear(f'<NormContinuous field="x">{2 * POINT}</NormContinuous>'),
        XYZ,
        "got NormContinuous in line 4: expected two LinearNorm or more",
    ),
]


@pytest.mark.parametrize(("model", "fields", "words"), REFUSED)
def test_what_would_change_an_answer_and_is_not_served_is_refused(
    folders: Folders, model: str, fields: str, words: str
) -> None:
    with pytest.raises(ModelLoadError, match=words):
        served(folders, write(folders.base, model, fields=fields))
