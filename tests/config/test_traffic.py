"""Settings of versions that contradict each other, and times as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError


def load(folder: Path, text: str) -> ServerSettings:
    """Return the settings of the model `m`."""
    path = folder / "config.yaml"
    path.write_text("models:\n  m:\n" + "".join(f"    {line}\n" for line in text.split("\n")))
    return load_settings(path, {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("canary: {version: latest}\ntraffic: {3: 1}", "canary: expected none beside `traffic`"),
        ("traffic: {3: 0}", "traffic: expected a share above 0"),
        ("versions: {latest: 0}", r"versions: expected all, latest, {latest: 2}, or .*; got"),
        ("versions: {newest: 2}", "versions: expected all, latest"),
        ("versions: [3, new]", "versions: expected all, latest"),
        ("versions: [-1]", "versions: expected all, latest"),
        ("versions: [true]", "versions: expected all, latest"),
        ("traffic: {stable: 1}", r"one of `labels` \(none is set\); got stable"),
        ("canary: {version: latest, every: 10 minutes}", "every: expected a time such as 30s, 10m"),
        ("canary: {version: latest, every: yes}", "every: expected a time such as 30s, 10m"),
    ],
)
def test_a_contradiction_is_named_with_its_setting(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"config.yaml:\d+: models.m.*{why}") as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "shadow: {version: 5}\ncanary: {version: latest}",
        "labels: {new: 5}\nshadow: {version: new}\ntraffic: {3: 9, 5: 1}",
        "labels: {stable: 5, canary: 5}\ntraffic: {stable: 95, canary: 5}",
        "labels: {stable: 5}\ncanary: {version: 5}",
        "versions: {latest: 2}",
        "versions: [3, 5]",
        "versions: all",
    ],
)
def test_what_is_no_contradiction_is_taken(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


@pytest.mark.parametrize(
    ("every", "seconds"), [("10m", 600), ("1.5h", 5400), ("30s", 30), ("90", 90), ("'90'", 90)]
)
def test_times_are_numbers_or_have_a_unit(tmp_path: Path, every: str, seconds: float) -> None:
    settings = load(tmp_path, f"canary: {{version: latest, every: {every}}}")
    canary = settings.for_model("m").canary
    assert canary is not None
    assert canary.every == seconds
