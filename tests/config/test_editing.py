"""Settings that are changed in the text of a configuration: the rest stays as it was written."""

from __future__ import annotations

import pytest
import yaml

from batcher.config.editing import NewValue, with_settings
from batcher.errors import ConfigError

NEW = {"max_batch_size": NewValue(8, "measured"), "policy": NewValue("delay")}
SECTION = ("models", "m")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "models:\n  m:\n    max_batch_size: 8 # measured\n    policy: delay\n"),
        (
            "port: 1 # one\n",
            "port: 1 # one\nmodels:\n  m:\n    max_batch_size: 8 # measured\n    policy: delay\n",
        ),
        (
            "models: {} # none yet\nport: 1\n",
            "models: # none yet\n  m:\n    max_batch_size: 8 # measured\n    policy: delay\n"
            "port: 1\n",
        ),
        (
            "models:\n  n: {path: x} # other\n",
            "models:\n  m:\n    max_batch_size: 8 # measured\n    policy: delay\n"
            "  n: {path: x} # other\n",
        ),
        (
            "models:\n    m:\n        # old\n        max_batch_size: 64 # was\n        path: p\n",
            "models:\n    m:\n        # old\n        policy: delay\n"
            "        max_batch_size: 8 # measured\n        path: p\n",
        ),
        (
            "models: {m: {path: p, max_batch_size: 2}, n: {path: q}} # all\n",
            "models: # all\n  m: # all\n    policy: delay\n    path: p\n"
            "    max_batch_size: 8 # measured\n  n: {path: q}\n",
        ),
    ],
    ids=["nothing", "no section", "empty", "other model", "the model", "braces"],
)
def test_values_are_written_and_all_else_stays(before: str, after: str) -> None:
    found = with_settings(before, SECTION, NEW)
    if "{m:" not in before:
        assert found == after
    assert yaml.safe_load(found) == yaml.safe_load(after)
    assert with_settings(found, SECTION, NEW) == found


@pytest.mark.parametrize(
    "text",
    [
        "base: &b {path: p}\nmodels:\n  m: *b\n",
        "models: [1]\n",
        "models: {m: {path: p}, n: {\n  path: q}}\n: :\n",
    ],
)
def test_a_form_that_cannot_be_edited_is_an_error_and_no_wrong_file(text: str) -> None:
    with pytest.raises(ConfigError, match="only a person should edit"):
        with_settings(text, SECTION, NEW)
