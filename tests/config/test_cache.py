"""`cache` in `config.yaml`: where answers are kept, and that no password is shown."""

from __future__ import annotations

import pytest

from batcher.config.redis_address import RedisAddress, without_passwords
from batcher.errors import ConfigError
from tests.config.conftest import Load

SECRET = "sesame-open-the-door"


def test_answers_are_kept_in_this_server_by_default(load: Load) -> None:
    cache = load("defaults: {cache: {ttl_s: 10m}}").defaults.cache
    assert cache is not None
    assert cache.redis is None


@pytest.mark.parametrize(
    ("store", "address"),
    [
        ("redis://a", RedisAddress("a", 6379, 0, None, None, False)),
        ("rediss://me:p%40:w@a.b:7/12", RedisAddress("a.b", 7, 12, "me", "p@:w", True)),
        ("redis://:w@[::1]:7/", RedisAddress("::1", 7, 0, None, "w", False)),
    ],
)
def test_a_redis_has_an_address(load: Load, store: str, address: RedisAddress) -> None:
    cache = load(f"models: {{m: {{cache: {{store: '{store}'}}}}}}").models["m"].cache
    assert cache is not None
    assert cache.redis == address
    assert "w@" not in f"{address}{cache!r}"


@pytest.mark.parametrize(
    "text",
    [
        "{store: 'http://u:sesame@a'}",
        "{store: 'redis://u:sesame@'}",
        "{store: 'redis://u:sesame@a:port'}",
        "{store: 'redis://u:sesame@a/x'}",
        "{store: 'redis://u:sesame@a?b=c'}",
        "{store: ['redis://u:sesame@a']}",
        "'redis://u:ses/am:e@a'",
        "['redis://u:sesame@a', {secret: sesame}]",
        "{secret: sesame}",
        "{secret: [sesame]}",
        f"{{store: 5, secret: {SECRET}}}",
    ],
)
def test_what_is_refused_shows_no_password(load: Load, text: str) -> None:
    with pytest.raises(ConfigError, match=r"cache.*expected .*got ") as refused:
        load(f"defaults: {{cache: {text}}}")
    assert "sesame" not in str(refused.value)


def test_settings_that_are_shown_have_no_secret(load: Load) -> None:
    text = f"defaults: {{cache: {{store: 'redis://u:sesame@a', secret: {SECRET}}}}}"
    assert "sesame" not in repr(load(text))


def test_passwords_are_cut_out_of_any_text() -> None:
    shown = without_passwords(
        "a redis://u:p@ss@b/1 {'secret': 'x', \"secret\": \"y\"} redis://:w/x@c"
    )
    assert shown == "a redis://…@b/1 {'secret': '…', \"secret\": '…'} redis://…@c"
