"""A model's sample: where it may stand, how it is read, and that warm-up runs it."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel
from tests.support.model_folders import Folders

WORDS = {
    "inputs": "[{name: text, dtype: BYTES, shape: []}]",
    "outputs": "[{name: words, dtype: INT64, shape: []}]",
}
FREE = {
    "inputs": "[{name: x, dtype: FP32, shape: [-1]}]",
    "outputs": "[{name: y, dtype: FP32, shape: []}]",
}
COUNT = """
class Model:
    def __init__(self):
        self.seen = []

    def predict(self, inputs):
        text = inputs["text"].tolist()
        self.seen.append(text)
        assert all(text), "an empty text"
        return {"words": [len(each.split()) for each in text]}
"""


def seen(checked: CheckedModel) -> list[Any]:
    """Return the batches that the model has seen, each once."""
    model: Any = checked.model
    return [batch for index, batch in enumerate(model._model.seen) if index in (0, 3, 5)]


def test_warmup_runs_the_rows_of_a_file_again_and_again(folders: Folders) -> None:
    files: dict[str, str | bytes] = {"s.json": '{"inputs": ["a b", "c"]}'}
    checked = folders.load(folders.python(COUNT, head="\nsample: s.json", files=files, **WORDS))
    assert seen(checked) == [[b"a b"], [b"a b", b"c"], [b"a b", b"c", b"a b", b"c"]]
    assert checked.loaded().sample == {"text": [b"a b"]}


def test_warmup_runs_the_sample_of_a_class(folders: Folders) -> None:
    source = COUNT.replace("class Model:", 'class Model:\n    sample = {"text": "one text"}\n')
    checked = folders.load(folders.python(source, **WORDS))
    assert seen(checked)[0] == [b"one text"]


def test_a_file_comes_before_the_class(folders: Folders) -> None:
    source = COUNT.replace("class Model:", 'class Model:\n    sample = {"text": "one"}\n')
    files: dict[str, str | bytes] = {"s.txt": "other"}
    checked = folders.load(folders.python(source, head="\nsample: s.txt", files=files, **WORDS))
    assert seen(checked)[0] == [b"other"]


def test_a_sample_gives_free_axes_their_size(folders: Folders) -> None:
    source = """
class Model:
    sample = {"x": np.ones((1, 5))}

    def predict(self, inputs):
        assert inputs["x"].shape[1] == 5
        return {"y": inputs["x"].sum(1)}
"""
    checked = folders.load(folders.python(source, **FREE))
    assert sorted(checked.timings) == [1, 2, 4]


def test_a_module_may_have_a_sample_too(folders: Folders) -> None:
    source = """
class Model(torch.nn.Module):
    sample = {"x": [[1.0, 2.0]]}

    def forward(self, x):
        return x.sum(1)
"""
    assert folders.load(folders.python(source, **FREE)).sample is not None


def test_a_method_of_that_name_is_no_sample(folders: Folders) -> None:
    source = f"{COUNT}\n    def sample(self):\n        return 1\n"
    with pytest.raises(ModelLoadError, match="an empty text"):
        folders.load(folders.python(source, **WORDS))


@pytest.mark.parametrize(
    ("sample", "complaint"),
    [
        (
            '{"txt": ["a"]}',
            r"attribute of the class\): .*expected inputs 'text'; got 'txt'",
        ),
        ('{"text": [1]}', r"sample \(attribute of the class\): .*expected a string"),
        ('{"text": []}', r"sample \(attribute of the class\): expected at least 1 row"),
    ],
)
def test_a_sample_that_the_model_does_not_take_fails_the_load_by_its_place(
    folders: Folders, sample: str, complaint: str
) -> None:
    source = COUNT.replace("class Model:", f"class Model:\n    sample = {sample}\n")
    with pytest.raises(ModelLoadError, match=complaint):
        folders.load(folders.python(source, **WORDS))


def test_a_file_that_is_no_sample_fails_the_load_by_its_name(folders: Folders) -> None:
    files: dict[str, str | bytes] = {"s.json": '{"inputs": [1]}'}
    definition = folders.python(COUNT, head="\nsample: s.json", files=files, **WORDS)
    with pytest.raises(ModelLoadError, match=r"sample \(s\.json\): input 'text'\[0\]: expected"):
        folders.load(definition)


def test_without_warmup_the_sample_is_read_all_the_same(folders: Folders) -> None:
    files: dict[str, str | bytes] = {"s.txt": "a"}
    definition = folders.python(COUNT, head="\nsample: s.txt", files=files, **WORDS)
    assert ModelSettings().warmup
    assert folders.load(definition, warmup=False).loaded().sample == {"text": [b"a"]}


@pytest.mark.parametrize(
    ("declared", "more"),
    [
        ("{'text': 'one text'}", ""),
        ("{'text': np.array([b'one text'], object)}", ""),
        ("np.array([b'one text'], object)", ""),
        ("'first.json'", ""),
        ("{'text': ['one text']}", "    sample = {'text': 'of the class'}\n"),
        ("None", "    sample = {'text': 'one text'}\n"),
        ("None", "    sample = np.array([b'one text'], object)\n"),
    ],
)
def test_warmup_and_deep_checks_run_the_sample_of_the_decorator(
    folders: Folders, declared: str, more: str
) -> None:
    decorator = f"import batcher\nimport numpy as np\n\n@batcher.model(sample={declared})\n"
    source = COUNT.replace("class Model:\n", f"{decorator}class Model:\n{more}")
    files: dict[str, str | bytes] = {"first.json": '{"text": ["one text"]}'}
    checked = folders.load(folders.python(source, files=files, **WORDS))
    assert seen(checked)[0] == [b"one text"]
    assert checked.loaded().sample == {"text": [b"one text"]}


def test_the_sample_of_a_function_is_run_too(folders: Folders) -> None:
    source = (
        "import batcher\n\n@batcher.model(inputs={'text': 'BYTES'}, sample=['a b'])\n"
        "def Model(text):\n    assert all(text)\n    return {'words': [len(t) for t in text]}\n"
    )
    checked = folders.load(folders.python(source, **WORDS))
    assert checked.loaded().sample == {"text": [b"a b"]}


def test_a_sample_of_the_decorator_that_the_model_does_not_take_fails_the_load(
    folders: Folders,
) -> None:
    decorator = "import batcher\n\n@batcher.model(sample='first.txt')\n"
    source = COUNT.replace("class Model:", f"{decorator}class Model:")
    with pytest.raises(ModelLoadError, match=r"sample first.txt: expected .npy, .npz, .json"):
        folders.load(folders.python(source, **WORDS))
