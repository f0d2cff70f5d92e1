"""The image of `Containerfile`: what is in it, and that its command serves, without rights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from urllib.request import Request, urlopen

from tests.end_to_end.processes import ROOT
from tests.integration.balancers import free_port
from tests.integration.images import buildah, container

UNCHECKED_HASH = b"\x01\0\0\0"
"""The flags of bytecode with a hash of its source in the place of the source's time."""


def test_the_image_answers_as_a_user_without_rights_and_ends_with_0(image: str) -> None:
    port = free_port()
    configuration = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    command = [*configuration["Entrypoint"], *configuration["Cmd"], "--port", str(port)]
    with container(image) as (name, _):
        server = subprocess.Popen(
            ["buildah", "run", "--isolation", "chroot", name, "--", *command],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert server.stdout is not None
            assert "ready on http://0.0.0.0" in server.stdout.readline()
            assert predicted(f"http://127.0.0.1:{port}", "digits") == "3"
            pid = _server(port)
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Uid:\t10001\t10001\t10001\t10001" in status
            os.kill(pid, signal.SIGTERM)
            assert server.wait(20) == 0
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)


def test_the_image_has_the_compiled_modules_and_neither_a_compiler_nor_sources(image: str) -> None:
    with container(image) as (_, root):
        assert list(root.glob("opt/batcher/lib/python3*/site-packages/batcher__mypyc.*.so"))
        assert not list(root.glob("usr/bin/*gcc*"))
        assert not (root / "src").exists()


def test_bytecode_and_machine_code_do_not_tell_when_and_where_they_were_made(image: str) -> None:
    with container(image) as (_, root):
        bytecode = root.glob("opt/batcher/lib/**/*.pyc")
        assert {_flags(file) for file in bytecode} == {UNCHECKED_HASH}
        for file in root.glob("opt/batcher/lib/python3*/site-packages/batcher__mypyc.*.so"):
            assert b".debug_info" not in file.read_bytes()
        assert "batcher:!:1:" in (root / "etc/shadow").read_text()


def _flags(bytecode: Path) -> bytes:
    with bytecode.open("rb") as file:
        return file.read(8)[4:]


def predicted(address: str, model: str) -> str:
    """Return the label that `model` finds for the picture of a 3."""
    picture = (ROOT / "examples" / "digits" / "3.png").read_bytes()
    request = Request(f"{address}/models/{model}/predict", picture, {"Content-Type": "image/png"})
    with urlopen(request, timeout=30) as answer:
        label: str = json.load(answer)["predictions"][0]["label"]
        return label


def _server(port: int) -> int:
    """Return the id of the process of the image that was started with `port`."""
    commands = {
        int(file.parent.name): file.read_text().split("\0")
        for file in Path("/proc").glob("[0-9]*/cmdline")
    }
    return min(
        pid
        for pid, words in commands.items()
        if words[0].startswith("/opt/batcher/") and str(port) in words
    )
