"""Write `files/`: models of scikit-learn as PMML, with rows and scikit-learn's own answers.

    python -m tests.models.pmml.make_files

Needs sklearn2pmml, and Java; the tests need neither.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent / "files"


def models() -> dict[str, tuple[Any, bool]]:
    """Return the estimators by name, each with whether its rows are the table with names."""
    from sklearn.cluster import KMeans
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        IsolationForest,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.svm import SVC, SVR
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    few = {"n_estimators": 4, "max_depth": 3, "random_state": 0}
    return {
        "tree_classes": (DecisionTreeClassifier(max_depth=4, random_state=0), False),
        "tree_numbers": (DecisionTreeRegressor(max_depth=4, random_state=0), False),
        "linear": (LinearRegression(), False),
        "linear_table": (LinearRegression(), True),
        "logistic": (LogisticRegression(), False),
        "logistic_table": (LogisticRegression(), True),
        "poisson": (PoissonRegressor(), False),
        "forest_classes": (RandomForestClassifier(**few), False),
        "forest_numbers": (RandomForestRegressor(**few), False),
        "boosted_classes": (GradientBoostingClassifier(**few), False),
        "boosted_numbers": (GradientBoostingRegressor(**few), False),
        "isolation": (IsolationForest(n_estimators=4, random_state=0), False),
        "neural_classes": (MLPClassifier((5,), max_iter=300, random_state=0), False),
        "neural_numbers": (
            MLPRegressor(hidden_layer_sizes=(5, 3), max_iter=300, random_state=0),
            False,
        ),
        "vectors_classes": (SVC(), False),
        "vectors_numbers": (SVR(), False),
        "clusters": (KMeans(3, random_state=0, n_init=2), False),
        "bayes": (GaussianNB(), False),
        "neighbors_classes": (KNeighborsClassifier(3), False),
        "neighbors_numbers": (KNeighborsRegressor(3), False),
    }


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "age": rng.normal(40, 9, 60).round(1),
            "city": rng.choice(["Bern", "Rome", "Wien"], 60),
            "rooms": rng.integers(1, 6, 60).astype(float),
        }
    )
    rows.loc[::7, "age"] = np.nan
    return rows


def pipeline(estimator: Any, is_table: bool) -> tuple[Any, pd.DataFrame, Any]:
    """Return a pipeline of sklearn2pmml, its rows, and its targets."""
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_iris
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn2pmml.pipeline import PMMLPipeline

    is_class = getattr(estimator, "_estimator_type", "") == "classifier"
    is_class = is_class or "Classifier" in type(estimator).__name__
    is_class = is_class or type(estimator).__name__ in ("LogisticRegression", "SVC", "GaussianNB")
    if is_table:
        rows = table()
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        columns = [("n", numbers, ["age", "rooms"]), ("t", OneHotEncoder(), ["city"])]
        target: Any = rows.rooms * 2 + rows.age.fillna(40) / 10
        target = np.where(target > 10, "dear", "cheap") if is_class else target
        steps = [("columns", ColumnTransformer(columns)), ("model", estimator)]
        return PMMLPipeline(steps), rows, target
    iris = load_iris(as_frame=True)
    rows = iris.data.iloc[::3].set_axis(["sl", "sw", "pl", "pw"], axis=1)
    target = iris.target_names[iris.target][::3] if is_class else iris.data.iloc[::3, 3] + 0.5
    rows = rows if is_class else rows.drop(columns="pw")
    return PMMLPipeline([("model", estimator)]), rows, target


def write(name: str, estimator: Any, is_table: bool) -> None:
    from sklearn2pmml import sklearn2pmml

    made, rows, target = pipeline(estimator, is_table)
    made.fit(rows, target)
    sklearn2pmml(made, str(FOLDER / f"{name}.pmml"))
    rows = rows.iloc[:20]
    answers: dict[str, Any] = {"predict": np.asarray(made.predict(rows)).tolist()}
    if name == "isolation":
        answers = {"score": made.named_steps["model"].decision_function(rows).tolist()}
    elif hasattr(made, "predict_proba"):
        answers["classes"] = [str(each) for each in made.classes_]
        answers["probabilities"] = made.predict_proba(rows).tolist()
    listed = {column: rows[column].where(rows[column].notna(), None).tolist() for column in rows}
    listed = {key: [None if v != v else v for v in value] for key, value in listed.items()}
    text = json.dumps({"rows": listed, "answers": answers})
    (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (estimator, is_table) in models().items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        try:
            write(name, estimator, is_table)
        except Exception as err:
            print(name, repr(err)[:300])  # noqa: T201  # a script
