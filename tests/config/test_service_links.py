"""Variables that Kubernetes and Docker set for services whose names begin with `batcher`."""

from __future__ import annotations

import pytest

from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError

URL = "tcp://10.96.0.7:8080"


def variables_of_a_service(prefix: str, port: int, protocol: str, name: str) -> dict[str, str]:
    """Return the variables that Kubernetes sets for a Service with one port."""
    url = f"{protocol.lower()}://10.96.0.7:{port}"
    numbered = f"{prefix}_PORT_{port}_{protocol}"
    return {
        f"{prefix}_SERVICE_HOST": "10.96.0.7",
        f"{prefix}_SERVICE_PORT": str(port),
        f"{prefix}_SERVICE_PORT_{name}": str(port),
        f"{prefix}_PORT": url,
        numbered: url,
        f"{numbered}_PROTO": protocol.lower(),
        f"{numbered}_PORT": str(port),
        f"{numbered}_ADDR": "10.96.0.7",
    }


LINK = {
    "BATCHER_NAME": "/shop/batcher",
    "BATCHER_PORT": URL,
    "BATCHER_PORT_8080_TCP": URL,
    "BATCHER_PORT_8080_TCP_START": URL,
    "BATCHER_PORT_8080_TCP_END": "tcp://10.96.0.7:8090",
    "BATCHER_PORT_8080_TCP_ADDR": "10.96.0.7",
    "BATCHER_PORT_8080_TCP_PROTO": "tcp",
    "BATCHER_PORT_8080_TCP_PORT_START": "8080",
    "BATCHER_PORT_8080_TCP_PORT_END": "8090",
    "BATCHER_ENV_PATH": "/usr/bin",
    "BATCHER_ENV_BATCHER_PORT": "9",
}


@pytest.mark.parametrize(
    "environment",
    [
        variables_of_a_service("BATCHER", 8080, "TCP", "HTTP"),
        variables_of_a_service("BATCHER", 443, "UDP", "QUIC"),
        variables_of_a_service("BATCHER_GRPC", 8081, "TCP", "GRPC"),
        variables_of_a_service("BATCHER_2", 8081, "SCTP", "MY_PORT"),
        LINK,
        {"BATCHER_BLUE_NAME": "/shop/batcher_blue", "BATCHER_BLUE_ENV_HOME": "/root"},
        {"BATCHER_PORT": "tcp://[fd00::7]:8080"},
    ],
)
def test_what_kubernetes_and_docker_set_for_a_service_changes_no_setting(
    environment: dict[str, str],
) -> None:
    assert load_settings(None, environment) == ServerSettings()


def test_settings_beside_them_count() -> None:
    environment = {
        **variables_of_a_service("BATCHER", 8080, "TCP", "HTTP"),
        "BATCHER_GRPC_PORT": "9001",
        "BATCHER_HOST": "0.0.0.0",
        "BATCHER_DEFAULTS__MAX_BATCH_SIZE": "7",
    }
    settings = load_settings(None, environment)
    assert (settings.grpc_port, settings.host, settings.port) == (9001, "0.0.0.0", 8080)
    assert settings.defaults.max_batch_size == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCHER_PROT", "9001"),
        ("BATCHER_PORT", "9001x"),
        ("BATCHER_PORT", "http://10.96.0.7:8080"),
        ("BATCHER_HOST_PORT", "9001"),
        ("BATCHER_SERVICE_HOSTS", "10.96.0.7"),
        ("BATCHER_PORT_HTTP", "8080"),
        ("BATCHER_NAME", "batcher"),
        ("BATCHER_ENV_PATH", "/usr/bin"),
        ("BATCHER_DEFAULTS__SERVICE_PORT", "8080"),
        ("BATCHER_SERVICE_PORT\n", "8080"),
    ],
)
def test_a_mistyped_setting_is_an_error_still(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"environment variable {name}"):
        load_settings(None, {name: value})
