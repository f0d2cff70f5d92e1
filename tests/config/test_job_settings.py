"""`jobs` in `config.yaml`: what it may hold."""

from __future__ import annotations

import pytest

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from tests.config.conftest import Load


def test_a_server_takes_no_jobs_by_default() -> None:
    assert ServerSettings().jobs is None


def test_what_is_not_said_has_a_default(load: Load) -> None:
    jobs = load("jobs: {inputs: [/data, s3://in/x], keep_days: 0.5}").jobs
    assert jobs is not None
    assert (jobs.folder, jobs.inputs, jobs.outputs) == ("jobs", ("/data", "s3://in/x"), ())
    assert (jobs.at_once, jobs.most, jobs.keep_days) == (1, 1000, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs: {inputs: ['']}", "jobs.inputs"),
        ("jobs: {at_once: 0}", "jobs.at_once: expected"),
        ("jobs: {keep_days: 0}", "jobs.keep_days: expected"),
        ("jobs: {input: [x]}", "unknown setting jobs.input; did you mean inputs"),
    ],
)
def test_anything_else_is_refused(load: Load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text)
