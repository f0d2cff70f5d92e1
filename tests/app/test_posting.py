"""`batcher predict`: what a person reads where no answer comes."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest

from batcher.app import posting


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            "cannot connect to http://h:1/predict: Connection refused: is the server running",
        ),
        (
            "unknown url type: h",
            "expected a URL such as http://127.0.0.1:8080/predict; got http://h",
        ),
    ],
)
def test_a_server_that_is_not_reached_is_named_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: OSError | str,
    said: str,
) -> None:
    def urlopen(request: object, timeout: float) -> None:
        raise URLError(reason)

    monkeypatch.setattr(posting, "urlopen", urlopen)
    (tmp_path / "x.json").write_text("{}")
    assert not posting.post_file("http://h:1/predict", tmp_path / "x.json", 1.0)
    assert capsys.readouterr().err.startswith(f"{tmp_path}/x.json: {said}")
