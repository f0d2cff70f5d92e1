"""etcd and ZooKeeper as Debian has them: a dead server is gone within its TTL, and so on."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batcher.client.listed_server import ListedServer
from batcher.client.registries.registry import Registry, registry_of
from batcher.core.registry_address import registry_address
from tests.end_to_end.processes import until
from tests.integration.balancers import found_program, free_port

ONE, OTHER = ListedServer("http://10.0.0.7:8080", 100.0, frozenset({"m"})), ListedServer("http://b")
TTL_S = 2.0
ANNOUNCE = """
import sys, time
from batcher.client.listed_server import ListedServer
from batcher.client.registries.registry import registry_of
from batcher.core.registry_address import registry_address

registry = registry_of(registry_address(sys.argv[1]))
registry.announce(ListedServer("http://dead:1"), float(sys.argv[2]))
print("announced", flush=True)
time.sleep(600)
"""


class Daemon:
    """A registry that can be killed and started again with what it had."""

    def __init__(self, command: list[str], address: str, environment: dict[str, str]) -> None:
        self.command, self.address, self.environment = command, address, environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.command,
            env=os.environ | self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def registry(self) -> Registry:
        return registry_of(registry_address(self.address))


def etcd(folder: Path) -> Daemon:
    program, client, peer = found_program("etcd", "etcd-server"), free_port(), free_port()
    options = {
        "data-dir": str(folder / "etcd"),
        "listen-client-urls": f"http://127.0.0.1:{client}",
        "advertise-client-urls": f"http://127.0.0.1:{client}",
        "listen-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-cluster": f"default=http://127.0.0.1:{peer}",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return Daemon([program, *words], f"etcd://127.0.0.1:{client}/batcher", {})


def zookeeper(folder: Path) -> Daemon:
    pytest.importorskip("kazoo", reason="extra zookeeper")
    jars = Path("/usr/share/java/zookeeper.jar")
    if not jars.exists():
        pytest.skip("needs ZooKeeper: apt-get install zookeeper")
    port = free_port()
    (folder / "zoo.cfg").write_text(
        f"tickTime=500\ndataDir={folder}\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
        "admin.enableServer=false\nminSessionTimeout=1000\n"
    )
    command = [found_program("java", "default-jre-headless"), "-cp", _class_path(), *_MAIN]
    return Daemon([*command, str(folder / "zoo.cfg")], f"zk://127.0.0.1:{port}/a/batcher", {})


_MAIN = ["org.apache.zookeeper.server.quorum.QuorumPeerMain"]


def _class_path() -> str:
    """Return what Debian's own script puts together."""
    script = Path("/usr/share/zookeeper/bin/zkEnv.sh")
    environment = Path("/etc/zookeeper/conf/environment")
    for file in (environment, script):
        if file.exists():
            shell = f'. {file} >/dev/null 2>&1; printf %s "$CLASSPATH"'
            found = subprocess.run(["bash", "-c", shell], capture_output=True, text=True).stdout
            if "zookeeper" in found:
                return found
    return "/usr/share/java/*"


KINDS: dict[str, Callable[[Path], Daemon]] = {"etcd": etcd, "zookeeper": zookeeper}


@pytest.fixture(params=KINDS)
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    found = KINDS[request.param](tmp_path)
    found.start()
    client = found.registry()
    until(lambda: _is_there(client), 60)
    client.close()
    yield found
    found.kill()


def _is_there(client: Registry) -> bool:
    with suppress(Exception):
        client.servers()
        return True
    return False


def asked(client: Registry) -> Any:
    """Return the addresses that are listed; None if the registry is away."""
    try:
        return {each.address for each in client.servers()}
    except Exception:
        return None


def test_servers_come_change_and_go(daemon: Daemon) -> None:
    first, second, client = (daemon.registry() for _ in range(3))
    assert client.servers() == []
    first.announce(ONE, TTL_S)
    second.announce(OTHER, TTL_S)
    assert sorted(client.servers()) == sorted([ONE, OTHER])
    changed = ONE._replace(weight=3.0)
    first.announce(changed, TTL_S)
    assert sorted(client.servers()) == sorted([changed, OTHER])
    ends_at = time.monotonic() + TTL_S + 1

    def outlived() -> bool:
        first.announce(changed, TTL_S)
        second.announce(OTHER, TTL_S)
        return time.monotonic() > ends_at

    until(outlived)
    assert sorted(client.servers()) == sorted([changed, OTHER])
    first.withdraw()
    assert asked(client) == {OTHER.address}
    for each in (first, second, client):
        each.close()


def test_an_entry_that_another_process_took_along_is_there_again(daemon: Daemon) -> None:
    server, last_run, client = (daemon.registry() for _ in range(3))
    server.announce(ONE, TTL_S)
    last_run.announce(ONE, TTL_S)
    last_run.withdraw()
    assert asked(client) == set()
    server.announce(ONE, TTL_S)
    assert asked(client) == {ONE.address}
    for each in (server, last_run, client):
        each.close()


def test_whoever_forgets_to_close_and_whoever_is_forked_leaves_nothing(daemon: Daemon) -> None:
    before = set(threading.enumerate())
    registry = daemon.registry()
    registry.announce(ONE, TTL_S)
    child = os.fork()
    if not child:  # its copy of the registry is not its own: no session of the parent's ends
        began = time.monotonic()
        registry.close()
        os._exit(time.monotonic() - began > 1)
    assert os.waitpid(child, 0)[1] == 0
    client = daemon.registry()
    assert asked(client) == {ONE.address}
    client.close()
    del registry
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before, 15)


def test_a_dead_server_is_gone_within_its_ttl(daemon: Daemon) -> None:
    client = daemon.registry()
    server = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, daemon.address, str(TTL_S)], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"announced\n"
    assert asked(client) == {"http://dead:1"}
    server.kill()
    server.wait()
    killed = time.monotonic()
    until(lambda: asked(client) == set(), 20)
    assert time.monotonic() - killed < TTL_S + 2  # both look for what is over once in a while
    client.close()


def test_a_registry_that_was_away_lists_a_server_again(daemon: Daemon) -> None:
    server, client = daemon.registry(), daemon.registry()
    server.announce(ONE, TTL_S)
    daemon.kill()
    assert asked(client) is None
    with pytest.raises(Exception, match=r".*"):
        server.announce(ONE, TTL_S)
    daemon.start()

    def listed() -> bool:
        with suppress(Exception):
            server.announce(ONE, TTL_S)
        return bool(asked(client) == {ONE.address})

    until(listed, 60)
    server.withdraw()
    assert asked(client) == set()
    for each in (server, client):
        each.close()
