"""Embeddings end to end: OpenAI's own client, and MiniLM beside its reference implementation.

`make tools` installs the client, and `make minilm` puts MiniLM into `models`; what is not there is
skipped. The reference vectors were made by sentence-transformers 6.2, one text a batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from batcher.core.spec import Array
from tests.end_to_end.processes import Process, started
from tests.support.blocks import ROOT
from tests.support.embedders import embedder, vector

HERE = Path(__file__).parent
PYTHONS = (str(ROOT / ".clients" / "tools" / "bin" / "python"), sys.executable)
MINILM = next(
    (
        folder
        for folder in (ROOT / "models" / "minilm", ROOT / ".clients" / "minilm")
        if (folder / "1" / "model.yaml").exists()
    ),
    None,
)
TEXTS, VECTORS = zip(*json.loads((HERE / "minilm_vectors.json").read_text()), strict=True)
REFERENCE = np.stack([np.frombuffer(b64decode(coded), "<f4") for coded in VECTORS])


def serving(folder: Path) -> Any:
    return started(folder, "--set", f"model_repository={folder / 'models'}")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("words")
    embedder(folder / "models")
    with serving(folder) as process:
        yield process


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    if MINILM is None:
        pytest.skip("MiniLM is not there; `make minilm` puts it into models/")
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    folder = tmp_path_factory.mktemp("minilm")
    (folder / "models").mkdir()
    (folder / "models" / "minilm").symlink_to(MINILM)
    with serving(folder) as process:
        yield process


def openai_python() -> str:
    for python in PYTHONS:
        if Path(python).exists():
            found = subprocess.run([python, "-c", "import openai"], capture_output=True)
            if found.returncode == 0:
                return python
    pytest.skip("OpenAI's client is not installed; `make tools` does it")


def test_openai_s_client_is_answered(words: Process) -> None:
    python, script = openai_python(), str(HERE / "openai_calls.py")
    run = subprocess.run([python, script, words.address], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    four = [[vector("four")], 5, "words"]
    assert found["text"] == found["floats"] == four
    assert found["texts"] == [[vector("four"), vector("three")], 11, "words"]
    assert found["ids"][0] == [[4, 9, 25, 1]]
    assert found["lists"] == [[[4, 9, 25, 1], [2, 7, 8, 1]], 6, "words"]
    assert found["short"][0] == [[1]]
    assert found["many"] == found["many floats"]
    assert found["many"] == [vector(f"text {index}") for index in range(2048)]
    assert found["indices"]
    assert found["models"] == ["words"]
    assert found["model"] == "words"
    invalid = "invalid_request_error"
    assert found["no model"] == ["NotFoundError", 404, "model_not_found", "model", invalid]
    for name in ("empty", "empty list", "too many"):
        assert found[name] == ["BadRequestError", 400, "invalid_input", "input", invalid]
    assert found["too wide"] == ["BadRequestError", 400, "invalid_input", "dimensions", invalid]
    assert found["loud"] == ["InternalServerError", 500, "model_error", None, "server_error"]


def post(process: Process, path: str, body: bytes, media_type: str) -> Any:
    headers = {"Content-Type": media_type, "Accept": "application/json"}
    with urlopen(Request(f"{process.address}{path}", body, headers)) as answer:
        return json.load(answer)


def embedded(process: Process, given: Any) -> Array:
    wish = {"model": "minilm", "input": given, "encoding_format": "base64"}
    found = post(process, "/v1/embeddings", json.dumps(wish).encode(), "application/json")
    return np.stack([np.frombuffer(b64decode(each["embedding"]), "<f4") for each in found["data"]])


def test_minilm_gives_the_vectors_of_the_reference_whatever_the_batch(minilm: Process) -> None:
    together = embedded(minilm, list(TEXTS))
    alone = np.concatenate([embedded(minilm, text) for text in TEXTS])
    for found in (together, alone):
        np.testing.assert_allclose(found, REFERENCE, atol=1e-4)
    assert ((together * alone).sum(1) >= 0.99999).all()


def test_minilm_takes_a_text_in_every_form(minilm: Process) -> None:
    route, text = "/models/minilm/predict", TEXTS[1]
    plain = post(minilm, route, text.encode(), "text/plain")
    document = json.dumps({"inputs": {"text": [text]}}).encode()
    named = post(minilm, route, document, "application/json")
    for found in (plain, named):
        np.testing.assert_allclose(found["outputs"]["embedding"], REFERENCE[1:2], atol=1e-4)


def test_minilm_takes_ids_with_and_without_their_ends(minilm: Process) -> None:
    from tokenizers import Tokenizer

    assert MINILM is not None
    tokenizer = Tokenizer.from_file(str(MINILM / "1" / "tokenizer.json"))
    whole = [encoded.ids for encoded in tokenizer.encode_batch(list(TEXTS))]
    np.testing.assert_allclose(embedded(minilm, whole), REFERENCE, atol=1e-4)
    inner = [ids[1:-1] for ids in whole]
    np.testing.assert_allclose(embedded(minilm, inner), REFERENCE, atol=1e-4)
