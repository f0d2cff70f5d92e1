"""AnomalyDetectionModel: the score is that of scikit-learn, or the kind of algorithm is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from tests.models.pmml.test_pmml import FILES, HEAD, inputs_of, served
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

NAMES = ("sl", "sw", "pl")
FIELDS = "".join(
    f'<DataField name="{name}" optype="continuous" dataType="double"/>' for name in NAMES
)
SCHEMA = (
    f"<MiningSchema>{''.join(f'<MiningField name={name!r}/>' for name in NAMES)}</MiningSchema>"
)


def write(folder: Path, kind: str, inner: str) -> Path:
    """Write a model of the algorithm `kind` (and further attributes) around the `inner` one."""
    model = f'<AnomalyDetectionModel functionName="regression" algorithmType={kind}>{SCHEMA}{inner}'
    file = folder / "anomalies.pmml"
    text = HEAD.format(fields=FIELDS, more="", model=f"{model}</AnomalyDetectionModel>")
    file.write_text(text)
    return file


def test_a_forest_scores_as_scikit_learn_does(folders: Folders, tmp_path: Path) -> None:
    # The trees of `isolation.pmml`, which was made of an IsolationForest of samples of 50 rows.
    text = (FILES / "isolation.pmml").read_text()
    trees = re.search(r"<MiningModel .*</MiningModel>", text, re.DOTALL)
    assert trees is not None
    bare = re.sub(r"<Output>.*?</Output>", "", trees[0], count=1, flags=re.DOTALL)
    recorded = json.loads((FILES / "isolation.json").read_text())
    file = write(tmp_path, '"iforest" sampleDataSize="50"', bare)
    checked = served(folders, file, max_batch_size=20)
    found = answers(checked, **inputs_of(checked, recorded["rows"]))["value"]
    # scikit-learn's score is 0.5 less the score of the standard.
    np.testing.assert_allclose(0.5 - found, recorded["answers"]["score"], atol=1e-6)


def vectors(model: Any, rows: Array) -> str:
    """Return a OneClassSVM as PMML has it."""
    instances = "".join(
        f'<VectorInstance id="{place}"><Array type="real">{" ".join(map(repr, row.tolist()))}'
        "</Array></VectorInstance>"
        for place, row in zip(model.support_, rows[model.support_], strict=True)
    )
    used = "".join(f'<SupportVector vectorId="{place}"/>' for place in model.support_)
    weights = "".join(f'<Coefficient value="{each!r}"/>' for each in model.dual_coef_[0].tolist())
    fields = "".join(f'<FieldRef field="{name}"/>' for name in NAMES)
    return (
        f'<SupportVectorMachineModel functionName="regression">{SCHEMA}'
        f'<RadialBasisKernelType gamma="{float(model._gamma)!r}"/><VectorDictionary>'
        f"<VectorFields>{fields}</VectorFields>{instances}</VectorDictionary>"
        f"<SupportVectorMachine><SupportVectors>{used}</SupportVectors>"
        f'<Coefficients absoluteValue="{model.intercept_[0].item()!r}">{weights}</Coefficients>'
        "</SupportVectorMachine></SupportVectorMachineModel>"
    )


@pytest.mark.parametrize("kind", ['"ocsvm"', '"other"'])
def test_vectors_of_one_class_score_as_scikit_learn_does(
    folders: Folders, tmp_path: Path, kind: str
) -> None:
    svm = pytest.importorskip("sklearn.svm")
    rows = np.random.default_rng(0).normal(size=(40, 3))
    model = svm.OneClassSVM(nu=0.2).fit(rows)
    checked = served(folders, write(tmp_path, kind, vectors(model, rows)), max_batch_size=40)
    columns = {name: rows[:, place].tolist() for place, name in enumerate(NAMES)}
    found = answers(checked, **inputs_of(checked, columns))["value"]
    np.testing.assert_allclose(found, model.decision_function(rows), atol=1e-6)


CLUSTERS = (
    f'<ClusteringModel functionName="clustering" modelClass="centerBased" numberOfClusters="1">'
    f'{SCHEMA}<ComparisonMeasure kind="distance"><squaredEuclidean/></ComparisonMeasure>'
    + "".join(f'<ClusteringField field="{name}" compareFunction="absDiff"/>' for name in NAMES)
    + '<Cluster id="1"><Array n="3" type="real">0 0 0</Array></Cluster></ClusteringModel>'
)


@pytest.mark.parametrize(
    ("kind", "inner", "words"),
    [
        ('"clusterMeanDist"', CLUSTERS, "AnomalyDetectionModel.*: algorithmType 'clusterMeanDist'"),
        ('"iforest" sampleDataSize="1"', CLUSTERS, "sampleDataSize: expected 2 or more; got 1"),
        ('"iforest"', CLUSTERS, "expected a number as sampleDataSize; got 'none'"),
        ('"ocsvm"', "", "AnomalyDetectionModel.*: no model in it"),
    ],
)
def test_another_algorithm_is_refused_by_name(
    folders: Folders, tmp_path: Path, kind: str, inner: str, words: str
) -> None:
    with pytest.raises(ModelLoadError, match=words):
        served(folders, write(tmp_path, kind, inner))
