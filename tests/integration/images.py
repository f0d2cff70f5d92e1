"""An image as `Containerfile` says, built by buildah on a Debian that debootstrap makes.

Neither needs a daemon, and nothing comes from a registry of images. Both need root.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.processes import ROOT
from tests.integration.balancers import found_program

BASE = "localhost/batcher-test-base"
IMAGE = "localhost/batcher-test"
PACKAGES = "python3,python3-venv,python3-dev,ca-certificates,systemd,systemd-sysv,dbus"
"""What the base has: what images of Python have, and systemd, which a container boots."""

CERTIFICATES = Path("/etc/ssl/certs")
BUILD_LIMIT_S = 1800
"""Seconds for a build: three minutes on a quiet machine, and many more on a busy one."""


def buildah(*arguments: str | Path) -> str:
    """Run buildah to its end, and return what it writes."""
    done = subprocess.run(
        ["buildah", *arguments],
        env=os.environ | {"BUILDAH_ISOLATION": "chroot"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout.strip()


@contextmanager
def built(folder: Path) -> Iterator[str]:
    """Yield the name of the image of this checkout; its files and its base go at the end.

    Args:
        folder: for files of the build.
    """
    with base():
        build(IMAGE, folder)
        yield IMAGE
        buildah("rmi", "--force", IMAGE)  # with containers that an ended run has left


@contextmanager
def base() -> Iterator[None]:
    """Have the image `BASE` while the context is open; what an ended run has left is taken."""
    if os.geteuid() != 0:
        pytest.skip("images are built by root here")
    for program in ("buildah", "debootstrap"):
        found_program(program, program)
    if BASE not in buildah("images", "--format", "{{.Name}}").split():
        _make_base()
    try:
        yield
    finally:
        buildah("rmi", "--force", BASE)


def build(name: str, folder: Path) -> None:
    """Build the image of this checkout, on `BASE`, with no time of its own in the image.

    Args:
        name: of the image.
        folder: for files of the build.
    """
    mounts = [f"{CERTIFICATES}:{CERTIFICATES}:ro", *_pip_mounts(folder / "pip.conf")]
    volumes = [part for mount in mounts for part in ("-v", mount)]
    options = ["--layers=false", "--timestamp", "0", "--build-arg", f"BASE={BASE}", *volumes]
    buildah("bud", *options, "-t", name, ROOT)


@contextmanager
def container(image: str) -> Iterator[tuple[str, Path]]:
    """Yield name and root folder of a new container, which is removed at the end."""
    name = buildah("from", image)
    try:
        yield name, Path(buildah("mount", name))
    finally:
        buildah("rm", name)


def _make_base() -> None:
    """Make the image `BASE` of the release of Debian that runs here."""
    release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    assert release
    with container("scratch") as (name, root):
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", release[1]]
        done = subprocess.run([*command, root], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        paths = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        buildah("config", "--env", paths, name)
        buildah("commit", "--quiet", name, BASE)


def _pip_mounts(file: Path) -> Sequence[str]:
    """Return volumes that let pip within a build find packages where pip finds them here."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    keys = "cert|index-url|extra-index-url|find-links"
    known = dict(re.findall(rf"^[\w:]+\.({keys})='(.*)'$", listed, re.MULTILINE))
    # Indexes that are folders have links to other folders, which would be missing.
    known["extra-index-url"] = re.sub(r"file:\S+", "", known.get("extra-index-url", "")).strip()
    file.write_text(
        "[global]\n" + "".join(f"{key} = {value}\n" for key, value in known.items() if value)
    )
    folders = [word for word in known.get("find-links", "").split() if Path(word).is_dir()]
    return [f"{file}:/etc/pip.conf:ro", *(f"{folder}:{folder}:ro" for folder in folders)]
