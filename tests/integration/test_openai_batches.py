"""Files and batches end to end, by OpenAI's own client; `make tools` installs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.end_to_end.processes import started
from tests.integration.test_embeddings import HERE, openai_python
from tests.support.embedders import SOURCE, embedder, vector

SLOW = f"import time\n{SOURCE}".replace("ids = inputs", "time.sleep(0.05)\n        ids = inputs")
CONFIG = """
model_repository: models
defaults: {max_batch_size: 4, bulk_after_ms: 20}
jobs: {uploads: {}}
"""


def test_openai_s_client_runs_files_batches_and_results_unchanged(tmp_path: Path) -> None:
    python, script = openai_python(), str(HERE / "openai_batch_calls.py")
    embedder(tmp_path / "models")
    slow = embedder(tmp_path / "models", "slow")
    (slow / "1" / "code.py").write_text(SLOW)
    (tmp_path / "config.yaml").write_text(CONFIG)
    serve = ("-m", "batcher.app.cli", "serve", "-c", str(tmp_path / "config.yaml"))
    with started(tmp_path, "--port", "0", command=serve) as server:
        run = subprocess.run([python, script, server.address], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["first"][:3] == ["batch", "24h", {"night": "1"}]
    assert found["counts"] == ["completed", 4, 2, 2]
    one, two = [vector("four")], [vector("four"), vector("three")]
    assert found["answers"] == [["a", 200, one], ["b", 200, two]]
    assert found["errors"] == [["c", 500, "model_error"], ["d", 400, "invalid_input"]]
    assert (found["file"], found["times"]) == ("mine.jsonl", True)
    faults = [[2, "invalid_json_line"], [3, "duplicate_custom_id"]]
    assert found["faults"] == ["failed", faults]
    assert found["cancelled"] == ["cancelled", True]
    assert found["batches"]
    assert found["purposes"] == ["batch"] * 3 + ["batch_output"] * 2
    unknown = ["NotFoundError", 404, "not_found"]
    assert found["strangers"] == [unknown] * 3 + [0]
    assert found["deleted"]
    assert found["gone"] == found["no file"] == unknown
    assert found["no endpoint"] == ["BadRequestError", 400, "invalid_input"]
