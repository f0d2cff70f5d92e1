"""Every kind of model in every format gives the answers that the model gives without a server.

Each request is sent alone, and then all requests are sent at once, so that they share batches.
Where a format does not have a kind, the model is refused when it is loaded, in words that name the
mend. `tests/support/kinds.py` says which is which, and docs/models.md shows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twisted.python.failure import Failure

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.request import InferenceResponse
from batcher.models.loading import compile_ahead
from tests.integration.kinds.files import define, directly
from tests.support.kinds import FORMATS, KINDS, WORKERS, Kind
from tests.support.model_folders import Folders
from tests.support.serving import Serving

NOT_COMPILED = pytest.mark.skipif(
    "ALL_KINDS" not in os.environ, reason="a compilation takes half a minute: make kinds has them"
)


def is_compiled(kind: Kind, format_name: str) -> bool:
    """Return whether the model is compiled before it answers."""
    cell = kind.cell(format_name)
    return format_name == "aoti" and not (cell.refusal or cell.uncompiled)


CASES = [
    pytest.param(
        kind,
        format_name,
        worker,
        id=f"{kind.name}, {format_name}, {worker}",
        # One kind is always compiled.
        marks=[NOT_COMPILED] if is_compiled(kind, format_name) and kind is not KINDS[0] else [],
    )
    for kind in KINDS
    for format_name in FORMATS
    for worker in WORKERS
    if kind.cell(format_name).exists
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled packages are kept, for both workers."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def serving(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(cache))
    serving = Serving()
    yield serving
    serving.end()


@pytest.mark.parametrize(("kind", "format_name", "worker"), CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_answers_are_those_of_the_model_or_the_model_is_refused_with_the_mend(
    serving: Serving, folders: Folders, kind: Kind, format_name: str, worker: str
) -> None:
    cell = kind.cell(format_name)
    definition = define(folders, kind, format_name)
    loaded = load(serving, definition, kind, format_name, worker)
    if cell.refusal:
        assert isinstance(loaded, Failure)
        assert cell.refusal in str(loaded.value)
        return
    assert loaded is None
    told = [text for _, text in serving.progress if text.startswith("not compiled")]
    assert [cell.uncompiled in text for text in told] == [True] * bool(cell.uncompiled)
    alone = [serving.response(serving.infer(inputs=request)) for request in kind.requests]
    waiting = [serving.infer(inputs=request) for request in kind.requests]
    together = [serving.response(answer) for answer in waiting]
    direct = directly(kind, format_name)
    for request, one, shared in zip(kind.requests, alone, together, strict=True):
        right = kind.answer(request)
        same(direct(request), right)
        same(outputs(one), right)
        same(outputs(shared), right)


def load(
    serving: Serving, definition: ModelDefinition, kind: Kind, format_name: str, worker: str
) -> Any:
    """Load the model; return None, or a failure."""
    settings = ModelSettings(
        device="cpu",
        worker=worker,
        max_batch_size=4,
        torch_threads=1,
        compile="aoti" if format_name == "aoti" else "none",
    )
    if is_compiled(kind, format_name):
        compile_ahead(definition, settings)
    return serving.loop.wait_for(serving.server.add(definition, settings))


def outputs(response: InferenceResponse) -> dict[str, Any]:
    """Return the outputs of an answer."""
    return dict(response.outputs)


def same(found: Any, right: Any) -> None:
    """Check that the outputs that `right` has are equal in `found`, dtype and shape included."""
    for name, value in right.items():
        rows, expected = list(found[name]), list(value)
        assert len(rows) == len(expected)
        for row, other in zip(rows, expected, strict=True):
            if isinstance(other, bytes):
                assert (row.encode() if isinstance(row, str) else row) == other
                continue
            array = np.asarray(row)
            assert (array.dtype, array.shape) == (np.asarray(other).dtype, np.shape(other))
            np.testing.assert_allclose(array, other, rtol=1e-6)
