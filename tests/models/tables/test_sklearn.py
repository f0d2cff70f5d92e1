"""Pickles of scikit-learn answer as the library does, alone and in batches, with text and holes."""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.codecs.formats.nested_lists import array_from_lists
from batcher.config.model_file import ModelDefinition, definition_of
from batcher.config.reading import Source
from batcher.config.single_file import SingleFile
from batcher.core.spec import Array
from batcher.errors import ConfigError, InvalidInput, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.describing.child import described
from batcher.models.describing.describe import describe, task_of
from tests.support.model_folders import Folders, answers
from tests.support.model_folders import folders as folders

pytest.importorskip("sklearn")
joblib = pytest.importorskip("joblib")
pd = pytest.importorskip("pandas")

from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler  # noqa: E402

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(64, 4))
TEXTS = ["a good day", "a bad day", "good food", "bad food", "so good", "so bad"]


def table() -> Any:
    """A table with holes among the numbers and among the texts."""
    made = pd.DataFrame(
        {
            "age": RNG.normal(40, 9, 64),
            "city": RNG.choice(["Bern", "Rome", "Zürich"], 64),
            "rooms": RNG.integers(1, 5, 64).astype(float),
        }
    )
    made.loc[::7, "age"] = np.nan
    made.loc[::5, "city"] = np.nan
    return made


TABLE = table()


def prices() -> Any:
    # Its encoder refuses texts that it does not know, so warm-up must know some.
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((texts, ["city"]), (numbers, ["age", "rooms"]))
    target = np.where(TABLE.rooms > 2, "dear", "cheap")
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, target)


def topics() -> Any:
    target = ["p", "n"] * 3
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, target)


def dumped(model: Any) -> bytes:
    file = BytesIO()
    joblib.dump(model, file)
    return file.getvalue()


def served(folders: Folders, model: Any, text: str = "", **settings: Any) -> CheckedModel:
    """Load `model` as the one file that it is; or as `text` of model.yaml says."""
    if text:
        definition = folders.write(
            f"format: sklearn\nfile: model.joblib\n{text}", {"model.joblib": dumped(model)}
        )
    else:
        definition = single(folders.base, dumped(model))
    return folders.load(definition, trusted=True, **settings)


def single(folder: Path, content: bytes, **more: Any) -> ModelDefinition:
    folder.mkdir(exist_ok=True)
    (folder / "model.joblib").write_bytes(content)
    file = SingleFile(folder / "model.joblib", **more)
    found = described(task_of(file, "sklearn", True))
    return definition_of(Source(found.values, {(): "m"}), "m", "1", folder, tuple(found.notes))


def columns(rows: Any) -> dict[str, Array]:
    """Return the rows of the table as the inputs of a request, as a codec makes them."""
    cities = ["" if city != city else city for city in rows.city]
    return {
        "age": rows.age.to_numpy(),
        "city": np.array([city.encode() for city in cities] + [None], object)[:-1],
        "rooms": rows.rooms.to_numpy(),
    }


def test_a_table_with_text_and_holes_answers_as_the_library_alone_and_in_batches(
    folders: Folders,
) -> None:
    model = prices()
    checked = served(folders, model, max_batch_size=64)
    wanted = model.predict_proba(TABLE)
    assert [(each.name, each.missing_is_nan) for each in checked.spec.inputs] == [
        ("age", True),
        ("city", True),
        ("rooms", True),
    ]
    together = answers(checked, **columns(TABLE))
    np.testing.assert_array_equal(together["predict_proba"], wanted)
    assert [text.decode() for text in together["predict"]] == model.predict(TABLE).tolist()
    for place in range(8):
        alone = answers(checked, **columns(TABLE.iloc[[place]]))
        np.testing.assert_allclose(alone["predict_proba"][0], wanted[place], rtol=1e-12)
    proba = checked.spec.outputs[1]
    assert proba.labels is not None
    assert proba.labels.names == ("cheap", "dear")


def test_texts_alone_are_a_list_and_their_classes_are_texts(folders: Folders) -> None:
    model = topics()
    checked = served(folders, model)
    rows = np.array([text.encode() for text in TEXTS], object)
    found = answers(checked, text=rows[:4])
    np.testing.assert_array_equal(found["predict_proba"], model.predict_proba(TEXTS[:4]))
    assert [text.decode() for text in found["predict"]] == model.predict(TEXTS[:4]).tolist()


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (lambda: RandomForestClassifier(5, random_state=0).fit(NUMBERS, NUMBERS[:, 0] > 0), ""),
        (lambda: LinearRegression().fit(NUMBERS, NUMBERS[:, :2]), "predict"),
        (lambda: StandardScaler().fit(NUMBERS), "transform"),
        (lambda: RandomForestClassifier(3).fit(NUMBERS, NUMBERS[:, :2] > 0), "predict_proba"),
        (lambda: OneHotEncoder(handle_unknown="ignore").fit(NUMBERS[:, :2] > 0), "transform"),
    ],
)
def test_numbers_are_one_input(folders: Folders, make: Callable[[], Any], method: str) -> None:
    model = make()
    checked = served(folders, model, max_batch_size=16)
    (tensor,) = checked.spec.inputs
    rows = NUMBERS[:16, : tensor.shape[0]]
    found = answers(checked, x=rows)
    for name in [method] if method else ["predict", "predict_proba"]:
        wanted = getattr(model, name)(rows)
        wanted = wanted.toarray() if hasattr(wanted, "toarray") else wanted
        wanted = np.stack(wanted, 1) if isinstance(wanted, list) else wanted
        np.testing.assert_array_equal(found[name], wanted)


def test_model_yaml_chooses_the_methods_and_one_input_for_all_columns(folders: Folders) -> None:
    rows = pd.DataFrame(NUMBERS, columns=list("abcd"))
    model = LogisticRegression().fit(rows, NUMBERS[:, 0] > 0)
    text = (
        "inputs: [{name: all, dtype: FP32, shape: [4]}]\n"
        "outputs: [{name: decision_function, dtype: FP32, shape: []}]"
    )
    found = answers(served(folders, model, text), all=NUMBERS[:3].astype("<f4"))
    wanted = model.decision_function(rows[:3])
    np.testing.assert_allclose(found["decision_function"], wanted, rtol=1e-5)


INPUT = "inputs: [{name: x, dtype: FP64, shape: [4]}]"
WRONG = [
    (
        f"{INPUT}\noutputs: [{{name: price, dtype: FP64, shape: []}}]",
        "outputs: expected names of methods that the estimator has, 'predict'; got 'price'",
    ),
    (
        "inputs: [{name: a, dtype: FP64, shape: []}, {name: e, dtype: FP64, shape: []}]\n"
        "outputs: [{name: predict, dtype: FP64, shape: []}]",
        "expected the columns that the model has learnt from, 'a', 'b', 'c', 'd'; got 'a', 'e'",
    ),
    (
        "inputs: [{name: a, dtype: FP64, shape: [2]}, {name: b, dtype: FP64, shape: []}]\n"
        "outputs: [{name: predict, dtype: FP64, shape: []}]",
        "got several, of which 'a' has another shape",
    ),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_does_not_fit_is_refused_with_what_there_is(
    folders: Folders, text: str, words: str
) -> None:
    rows = pd.DataFrame(NUMBERS, columns=list("abcd"))
    with pytest.raises(ModelLoadError, match=re.escape(words)):
        served(folders, LinearRegression().fit(rows, NUMBERS[:, 0]), text)


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def test_a_pickle_that_is_not_trusted_is_not_read(folders: Folders, tmp_path: Path) -> None:
    outputs = "[{name: predict, dtype: FP64, shape: []}]"
    files: dict[str, str | bytes] = {"model.pkl": pickle.dumps(Planted())}
    definition = folders.define("format: sklearn\nfile: model.pkl", files, outputs=outputs)
    with pytest.raises(ModelLoadError, match=r"expected `trusted: true`; got model\.pkl, a pickle"):
        folders.load(definition)
    with pytest.raises(ConfigError, match=r"any code .*--set models.NAME.trusted=true.* skl2onnx"):
        describe(SingleFile(definition.file), False)


def test_a_pickle_of_something_else_is_refused_with_the_way_to_serve_it(folders: Folders) -> None:
    words = "expected an estimator of scikit-learn, .* got dict. .* write a class with `load`"
    with pytest.raises(ConfigError, match=words):
        single(folders.base, dumped({"weights": NUMBERS}))


def test_a_model_that_does_not_run_on_zeros_needs_a_declaration(folders: Folders) -> None:
    with pytest.raises(ConfigError, match="expected a model that runs on rows of zeros; got"):
        single(folders.base, dumped(FormOfNone()))


class FormOfNone:
    n_features_in_ = 2

    def predict(self, table: Any) -> Any:
        raise ValueError("columns of another kind")


def test_text_that_is_not_utf_8_fails_by_name(folders: Folders) -> None:
    checked = served(folders, topics())
    with pytest.raises(InvalidInput, match="input 'text': expected text in UTF-8"):
        answers(checked, text=np.array([b"\xff"], object))


def test_null_of_a_text_that_may_be_missing_is_an_empty_text(folders: Folders) -> None:
    checked = served(folders, prices())
    city = checked.spec.inputs[1]
    assert array_from_lists(["Bern", None, "Rome"], city).tolist() == [b"Bern", b"", b"Rome"]


def test_a_class_beside_the_pickle_is_found(folders: Folders) -> None:
    source = (
        "class Double:\n    n_features_in_ = 1\n\n"
        "    def predict(self, table):\n        return table[:, 0] * 2\n"
    )
    text = (
        "format: sklearn\nfile: model.pkl\nimports: [doubling]\n"
        "inputs: [{name: x, dtype: FP64, shape: [1]}]\n"
        "outputs: [{name: predict, dtype: FP64, shape: []}]\n"
    )
    files: dict[str, str | bytes] = {"doubling.py": source, "model.pkl": b"cdoubling\nDouble\n(tR."}
    checked = folders.load(folders.write(text, files), trusted=True)
    assert answers(checked, x=np.ones((2, 1)))["predict"].tolist() == [2, 2]


def lengths(table: Any) -> Array:
    return np.array([[len(text)] for text in table.iloc[:, 0]])


def test_a_column_of_text_of_which_the_model_knows_none_is_warmed_up_with_some(
    folders: Folders,
) -> None:
    columns = make_column_transformer(
        (OneHotEncoder(), ["city"]), (FunctionTransformer(lengths), ["note"])
    )
    rows = pd.DataFrame({"city": ["Bern", "Rome"] * 4, "note": ["a", "long"] * 4})
    model = make_pipeline(columns, LinearRegression()).fit(rows, range(8))
    text = (
        "inputs: [{name: city, dtype: BYTES, shape: []}, {name: note, dtype: BYTES, shape: []}]\n"
        "outputs: [{name: predict, dtype: FP64, shape: []}]\n"
    )
    checked = served(folders, model, text)
    sent = {name: np.array([text.encode() for text in rows[name]], object) for name in rows}
    np.testing.assert_allclose(answers(checked, **sent)["predict"], model.predict(rows))


def test_columns_without_names_are_warmed_up_with_texts_that_the_model_knows(
    folders: Folders,
) -> None:
    rows = np.array([[1.0, "Bern"], [2.0, "Rome"]] * 4, object)
    columns = make_column_transformer((OneHotEncoder(), [1]), remainder="passthrough")
    model = make_pipeline(columns, LinearRegression()).fit(rows, range(8))
    text = (
        "inputs: [{name: age, dtype: FP64, shape: []}, {name: city, dtype: BYTES, shape: []}]\n"
        "outputs: [{name: predict, dtype: FP64, shape: []}]\n"
    )
    checked = served(folders, model, text)
    cities = np.array([city.encode() for city in rows[:, 1]], object)
    made = answers(checked, age=rows[:, 0].astype(float), city=cities)["predict"]
    np.testing.assert_allclose(made, model.predict(rows))


@pytest.mark.parametrize("shape", ["[]", "[1]"])
def test_a_text_may_have_an_axis_of_one(folders: Folders, shape: str) -> None:
    text = (
        f"inputs: [{{name: text, dtype: BYTES, shape: {shape}}}]\n"
        "outputs: [{name: predict, dtype: BYTES, shape: []}]\n"
    )
    checked = served(folders, topics(), text)
    sent = np.array([b"a good day", b"so bad"], object).reshape(2, *json.loads(shape))
    assert answers(checked, text=sent)["predict"].tolist() == [b"p", b"n"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"c__main__\nScaler\n(tR.",
            "no attribute 'Scaler'. .* a module beside the file, .*`imports`",
        ),
        (b"garbage", "expected a pickle of an estimator; got ValueError: .* may be damaged"),
        (b"", r"got EOFError\. The file may be damaged"),
    ],
    ids=["of a script", "garbage", "empty"],
)
def test_a_pickle_that_cannot_be_read_is_refused_with_the_mend(
    folders: Folders, content: bytes, words: str
) -> None:
    outputs = "[{name: predict, dtype: FP64, shape: []}]"
    definition = folders.define("format: sklearn", {"m.pkl": content}, outputs=outputs)
    with pytest.raises(ModelLoadError, match=words):
        folders.load(definition, trusted=True)


def test_without_the_library_the_extra_is_named(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    outputs = "[{name: predict, dtype: FP64, shape: []}]"
    definition = folders.define("format: sklearn\nfile: m.pkl", {"m.pkl": b""}, outputs=outputs)
    words = r"expected the extra sklearn; got none.*pip install 'batcher-inference\[sklearn\]'"
    with pytest.raises(ModelLoadError, match=words):
        folders.load(definition, trusted=True)
