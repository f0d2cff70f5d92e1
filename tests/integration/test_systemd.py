"""The units of `deploy/systemd/`: verified, and run by a systemd that boots in a container.

The container's folders are those of the image, whose base has systemd; the network is this
machine's. Where no container can boot, the units are verified alone.
"""

from __future__ import annotations

import re
import resource
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.end_to_end.processes import ROOT, until
from tests.integration.balancers import found_program, free_port
from tests.integration.images import container
from tests.integration.test_image import predicted

UNITS = ROOT / "deploy" / "systemd"
BOOT_LIMIT_S = 180.0
"""Seconds for a boot, which takes one or two, for a start of the server, and for a command in the
container: a busy machine may need a minute.
"""
MOST_EXPOSED = 2.0
"""The bound for what systemd calls exposure: 0 is none, 10 is all."""

CONFIGURATION = """
model_repository: /srv/batcher/models
models:
  digits_process: {worker: process}
"""


class Booted:
    """A systemd that runs as process 1 of a container.

    Attributes:
        address: `http://host:port` of the socket unit.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._process = process

    @property
    def leader(self) -> int:
        """The id of process 1 of the container, as this machine counts."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return int(children.split()[0])

    def run(self, *command: str) -> str:
        """Run a command in the container, and return what the command writes."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-p", "--", *command],
            capture_output=True,
            text=True,
            timeout=BOOT_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def property(self, name: str) -> str:
        """Return a property of the service."""
        return self.run(
            "systemctl", "show", "batcher.service", "--property", name, "--value"
        ).strip()


@pytest.fixture(scope="module")
def booted(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    found_program("systemd-nspawn", "systemd-container")
    port = free_port()
    log = tmp_path_factory.mktemp("systemd") / "log.txt"
    with container(image) as (_, root):
        _install(root, port)
        command = ["systemd-nspawn", "--register=no", "--keep-unit", "--link-journal=no", "--boot"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "-D", str(root), "systemd.unit=batcher-test.target"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                until(lambda: _listens(port, process, log), BOOT_LIMIT_S)
                yield Booted(process, port)
            finally:
                process.terminate()
                process.wait(30)


def test_systemd_verifies_the_units(tmp_path: Path) -> None:
    program = found_program("systemd-analyze", "systemd")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/batcher/bin/batcher", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / name) for name in ("batcher.service", "batcher.socket")]
    done = subprocess.run([program, "verify", *names], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_finds_that_the_service_can_reach_little() -> None:
    program = found_program("systemd-analyze", "systemd")
    command = [program, "security", "--offline=yes", str(UNITS / "batcher.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: (\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_a_connection_to_the_socket_starts_the_service_which_answers(booted: Booted) -> None:
    wait_ready(booted)
    assert booted.property("ActiveState") == "active"


def test_the_service_has_no_rights_and_a_filter_of_system_calls(booted: Booted) -> None:
    wait_ready(booted)
    pid = booted.property("MainPID")
    status = booted.run("cat", f"/proc/{pid}/status")
    assert "Uid:\t0" not in status
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"):
        assert line in status
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # this machine may allow less
    files = re.search(r"open files +\d+ +(\d+)", booted.run("cat", f"/proc/{pid}/limits"))
    assert files
    assert int(files[1]) == min(32768, most)


def test_a_model_in_a_process_of_its_own_runs_within_the_same_limits(booted: Booted) -> None:
    wait_ready(booted)
    assert predicted(booted.address, "digits_process") == "3"


def test_models_can_be_compiled_into_the_cache_folder_alone(booted: Booted) -> None:
    wait_ready(booted)
    pid = booted.property("MainPID")
    user = booted.run("stat", "--format", "%u", f"/proc/{pid}").strip()
    as_service = ("nsenter", "-t", pid, "-m", "-S", user)
    booted.run(*as_service, "touch", "/var/cache/batcher/package")
    with pytest.raises(AssertionError, match=r"Permission denied|Read-only"):
        booted.run(*as_service, "touch", "/etc/batcher/config.yaml")


def test_systemctl_reload_reads_the_configuration_again(booted: Booted) -> None:
    wait_ready(booted)
    booted.run("systemctl", "reload", "batcher.service")
    until(lambda: 'batcher_reloads_total{outcome="applied"} 1.0' in page(booted, "/metrics"))


def test_a_restart_refuses_no_connection(booted: Booted) -> None:
    """Requests that come while the models load are told when to ask again."""
    wait_ready(booted)
    over, answers = threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            answers.append(label_or_hint(booted))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    booted.run("systemctl", "restart", "batcher.service")
    before = answers.count("3")
    until(lambda: answers.count("3") > before + 20, BOOT_LIMIT_S)
    over.set()
    for client in clients:
        client.join()
    assert set(answers) <= {"3", "later"}


def test_a_service_that_is_killed_comes_back(booted: Booted) -> None:
    wait_ready(booted)
    pid = booted.property("MainPID")
    booted.run("sh", "-c", f"kill -KILL {pid}")
    wait_ready(booted)
    assert booted.property("MainPID") != pid
    assert booted.property("NRestarts") == "1"


def test_a_stop_ends_the_service_with_success(booted: Booted) -> None:
    wait_ready(booted)
    booted.run("systemctl", "stop", "batcher.socket", "batcher.service")
    assert booted.property("Result") == "success"
    assert booted.property("ExecMainStatus") == "0"


def label_or_hint(booted: Booted) -> str:
    """Return the label of the 3, `later` for a 503 with `Retry-After`, else what went wrong."""
    try:
        return predicted(booted.address, "digits")
    except HTTPError as err:
        return "later" if err.code == 503 and err.headers["Retry-After"] else repr(err)
    except OSError as err:
        return repr(err)


def wait_ready(booted: Booted) -> None:
    """Wait until both models are loaded; a connection lets the socket start the service."""

    def ready() -> bool:
        try:
            return page(booted, "/readyz") != ""
        except OSError:
            return False

    until(ready, BOOT_LIMIT_S)


def page(booted: Booted, route: str) -> str:
    """Return the body of a page of the server."""
    with urlopen(booted.address + route, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def _install(root: Path, port: int) -> None:
    """Do what docs/deploy_systemd.md says, in the folders of a container.

    The image's own user goes: the service has a user of its own, which the image's would replace.
    """
    for name in ("passwd", "group"):
        file = root / "etc" / name
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not line.startswith("batcher:")))
    units = root / "etc" / "systemd" / "system"
    for name in ("batcher.service", "batcher.socket"):
        text = (UNITS / name).read_text()
        (units / name).write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    (units / "batcher-test.target").write_text(
        "[Unit]\nRequires=basic.target batcher.socket\nAfter=basic.target batcher.socket\n"
    )
    (root / "etc" / "batcher" / "config.yaml").write_text(CONFIGURATION)
    for model in ("digits", "digits_process"):
        shutil.copytree(ROOT / "models" / "digits", root / "srv/batcher/models" / model)


def _listens(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")[-4000:]
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
