"""Models of tables and of bags of words: scikit-learn, LightGBM and XGBoost, trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from batcher.core.spec import Array
from tests.integration.models.case import Case, Reference, Rows
from tests.integration.models.texts import strings, text_array

TRAINING = (
    ("the cat sleeps on the mat", "animals"),
    ("a dog and an owl", "animals"),
    ("the house has four rooms", "houses"),
    ("a small old house", "houses"),
    ("rain and wind today", "weather"),
    ("the wind is cold", "weather"),
)
TEXTS = ("a cat", "the house of an owl", "cold rain", "wind on the house")


def iris() -> tuple[Array, Array]:
    """Return the features of 150 flowers, and the kind of each."""
    from sklearn.datasets import load_iris

    features, kinds = load_iris(return_X_y=True)
    return features.astype(np.float32), kinds


def flowers() -> Array:
    """Return the features of flowers of each kind."""
    return np.ascontiguousarray(iris()[0][::30])


def topic_pipeline() -> Any:
    """Return a trained pipeline of scikit-learn that takes texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, topics = zip(*TRAINING, strict=True)
    # onnxruntime makes small letters only where the machine has the locale en_US.UTF-8.
    words = TfidfVectorizer(lowercase=False)
    return make_pipeline(words, LogisticRegression()).fit(texts, topics)


def topics(folder: Path) -> Reference:
    """A pickled pipeline: names of classes, and float64."""
    import joblib

    pipeline = topic_pipeline()
    joblib.dump(pipeline, folder / "pipeline.joblib")

    def answer(inputs: dict[str, Array]) -> Rows:
        texts = strings(inputs["text"])
        found = [topic.encode() for topic in pipeline.predict(texts)]
        return {"topic": found, "probability": pipeline.predict_proba(texts)}

    return Reference({"text": text_array(*TEXTS)}, answer)


def prices(folder: Path) -> Reference:
    """A pickled pipeline over a table with holes and names."""
    import joblib
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    generator = np.random.default_rng(4)
    table = pd.DataFrame(
        {
            "area": generator.uniform(20, 200, 200),
            "rooms": generator.integers(1, 7, 200).astype(float),
            "city": generator.choice(["Bern", "Graz", "Ulm"], 200),
        }
    )
    table.loc[::7, "area"] = np.nan
    price = table["area"].fillna(50) * 3 + table["rooms"] * 10
    names = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((names, ["city"]), remainder="passthrough")
    pipeline = make_pipeline(columns, HistGradientBoostingRegressor()).fit(table, price)
    joblib.dump(pipeline, folder / "pipeline.joblib")

    def answer(inputs: dict[str, Array]) -> Rows:
        rows = pd.DataFrame({**inputs, "city": strings(inputs["city"])})
        return {"price": pipeline.predict(rows)}

    inputs = {
        "area": np.array([70, np.nan, 120, 30], np.float32),
        "rooms": np.array([3, 2, np.nan, 1], np.float32),
        "city": text_array("Bern", "Graz", "Ulm", "Rom"),
    }
    return Reference(inputs, answer)


def forest_onnx(folder: Path) -> Reference:
    """A forest as skl2onnx writes it by itself: its probabilities are a sequence of maps."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    features, kinds = iris()
    forest = RandomForestClassifier(10, random_state=0).fit(features, kinds)
    (folder / "forest.onnx").write_bytes(to_onnx(forest, features[:1]).SerializeToString())

    def answer(inputs: dict[str, Array]) -> Rows:
        rows = inputs["X"]
        return {
            "output_label": forest.predict(rows),
            "output_probability": forest.predict_proba(rows),
        }

    return Reference({"X": flowers()}, answer)


def topics_onnx(folder: Path) -> Reference:
    """A pipeline over texts as ONNX: texts go into the graph, names come out."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import StringTensorType

    pipeline = topic_pipeline()
    graph = convert_sklearn(
        pipeline,
        initial_types=[("text", StringTensorType([None, 1]))],
        options={id(pipeline): {"zipmap": False}},
    )
    (folder / "topics.onnx").write_bytes(graph.SerializeToString())

    def answer(inputs: dict[str, Array]) -> Rows:
        texts = strings(inputs["text"][:, 0])
        found = [topic.encode() for topic in pipeline.predict(texts)]
        return {"label": found, "probabilities": pipeline.predict_proba(texts)}

    return Reference({"text": text_array(*TEXTS).reshape(-1, 1)}, answer)


def lightgbm_onnx(folder: Path) -> Reference:
    """LightGBM, converted to ONNX."""
    import lightgbm
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    features, kinds = iris()
    trees = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(features, kinds)
    graph = convert_lightgbm(
        trees, initial_types=[("input", FloatTensorType([None, 4]))], zipmap=False
    )
    (folder / "lightgbm.onnx").write_bytes(graph.SerializeToString())
    return Reference({"input": flowers()}, classifier(trees))


def lightgbm_native(folder: Path) -> Reference:
    """LightGBM, from its own file."""
    import lightgbm

    features, kinds = iris()
    data = lightgbm.Dataset(features, kinds)
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1}
    trees = lightgbm.train(settings, data, num_boost_round=10)
    trees.save_model(str(folder / "trees.txt"))
    return Reference(
        {"features": flowers()}, lambda inputs: {"scores": trees.predict(inputs["features"])}
    )


def xgboost_onnx(folder: Path) -> Reference:
    """XGBoost, converted to ONNX."""
    import xgboost
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    features, kinds = iris()
    trees = xgboost.XGBClassifier(n_estimators=10).fit(features, kinds)
    graph = convert_xgboost(trees, initial_types=[("input", FloatTensorType([None, 4]))])
    (folder / "xgboost.onnx").write_bytes(graph.SerializeToString())
    return Reference({"input": flowers()}, classifier(trees))


def xgboost_native(folder: Path) -> Reference:
    """XGBoost, from its own file."""
    import xgboost

    features, kinds = iris()
    trees = xgboost.XGBRegressor(n_estimators=10).fit(features[:, :4], kinds)
    trees.save_model(folder / "trees.json")
    return Reference(
        {"features": flowers()}, lambda inputs: {"value": trees.predict(inputs["features"])}
    )


def classifier(trees: Any) -> Any:
    """Return a function that asks a trained classifier for kinds and probabilities."""
    return lambda inputs: {
        "label": trees.predict(inputs["input"]),
        "probabilities": trees.predict_proba(inputs["input"]),
    }


CASES = [
    Case("topics", ("sklearn",), topics),
    Case("prices", ("sklearn", "pandas"), prices),
    Case("forest_onnx", ("skl2onnx",), forest_onnx),
    Case("topics_onnx", ("skl2onnx",), topics_onnx),
    Case("lightgbm_onnx", ("lightgbm", "onnxmltools"), lightgbm_onnx),
    Case("lightgbm", ("lightgbm", "sklearn"), lightgbm_native),
    Case("xgboost_onnx", ("xgboost", "onnxmltools"), xgboost_onnx),
    Case("xgboost", ("xgboost", "sklearn"), xgboost_native),
]
