"""What fronts learn of the settings: what they need, and no secret."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from batcher.app.fronts.engine_front import EngineFront
from batcher.app.fronts.front_settings import NEEDED, for_fronts
from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.table import routes
from batcher.frontends.link.asking import EngineLink, RemoteEngine
from batcher.frontends.listening.tls import tls_files
from batcher.frontends.web.limits import Limits
from batcher.serving.metrics import ServerMetrics
from batcher.serving.references.fetcher import InputFetcher
from batcher.workers.pools import make_pools

SECRETS = (b"clients-key", b"of-the-cache-secret", b"of-redis", b"of-consul", b"of-one-model")
CONFIG = """
tls_certificate: gone.pem
expose_errors: true
sagemaker: true
torchserve: true
vertex_predict_route: /vertex
input_sources: ["s3://photos/"]
registry: consul://:of-consul@localhost:8500/batcher
quotas: {clients-key: {rows_per_s: 1, burst_rows: 1}}
defaults: {cache: {store: "redis://user:of-redis@localhost", secret: of-the-cache-secret}}
models: {m: {cache: {secret: of-one-model-alone}}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return load_settings(path, {})


@pytest.fixture
def theirs(settings: ServerSettings) -> ServerSettings:
    """Return the settings as a front gets them."""
    engine: Any = EngineFront.__new__(EngineFront)
    engine._settings = lambda: settings
    _, data = engine._settings_message()
    assert not [secret for secret in SECRETS if secret in data]
    found: ServerSettings = pickle.loads(data)
    return found


def test_the_secrets_of_the_test_are_where_settings_are(settings: ServerSettings) -> None:
    data = pickle.dumps(settings)
    assert [secret for secret in SECRETS if secret not in data] == []


def test_a_front_has_what_it_needs_and_nothing_else(
    settings: ServerSettings, theirs: ServerSettings
) -> None:
    assert vars(theirs) == {name: getattr(settings, name) for name in NEEDED}
    for name in set(ServerSettings.model_fields) - NEEDED:
        with pytest.raises(AttributeError):
            getattr(theirs, name)


def test_what_a_front_has_is_enough_for_all_its_parts(theirs: ServerSettings) -> None:
    clock, metrics = Clock(), ServerMetrics()
    pools = make_pools(theirs, lambda *_: None, clock)
    fetcher = InputFetcher(theirs, pools.inputs, clock.seconds, metrics.fetches)
    link = EngineLink(lambda _: None, cast(Any, None))
    engine = RemoteEngine(link, metrics, pools, fetcher, clock.seconds)
    table = routes(cast(Any, engine), cast(Any, None), theirs, disclosure_of(theirs, clock.seconds))
    assert {"/invocations", "/vertex", "/predictions/{name}"} <= {each.pattern for each in table}
    assert Limits.from_settings(theirs).body == theirs.max_body_bytes


def test_an_error_of_a_front_names_the_place_of_a_setting(
    theirs: ServerSettings, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^config\.yaml:2: tls_certificate: "):
        tls_files(theirs, tmp_path)


def test_settings_for_fronts_can_be_made_of_themselves(theirs: ServerSettings) -> None:
    assert for_fronts(theirs) == theirs
