"""How large the image of `Containerfile` is, how long it starts, and whether it is reproducible.

The image is built twice, with the same base and the same index of packages; both must be the same
to the last bit. The base is a Debian that debootstrap makes, with systemd; what stands above it is
this project's, and what a platform with a Python of its own has to store (Heroku's slug).

Needs root, buildah and debootstrap. Builds take minutes each.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.reporting import write_results
from tests.integration.balancers import free_port
from tests.integration.images import IMAGE, base, build, buildah, container

MB = 1_000_000
AGAIN = f"{IMAGE}-again"
END_LIMIT_S = 30.0


def main() -> None:
    """Build, measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=7)
    starts = parser.parse_args().starts
    with TemporaryDirectory() as name, base():
        folder = Path(name)
        for image in (IMAGE, AGAIN):
            build(image, folder)
        try:
            row = {**_sizes(folder), "same digest twice": _digest(IMAGE) == _digest(AGAIN)}
            seconds = [_start_s() for _ in range(starts)]
        finally:
            buildah("rmi", "--force", IMAGE, AGAIN)
    row |= {"start s": median(seconds), "slowest start s": max(seconds)}
    remarks = [
        "Compressed with gzip, as registries store layers; the base is a whole Debian.",
        "A start is from the container's command to the line that the server is ready, with the "
        f"digits model: {starts} starts, the median and the slowest.",
    ]
    print(write_results("image", "The image for the CPU", [row], remarks))


def _digest(image: str) -> str:
    return str(json.loads(buildah("inspect", "--type", "image", image))["FromImageDigest"])


def _sizes(folder: Path) -> dict[str, Any]:
    """Return the image's sizes in MB, as a registry and a disk would have it."""
    with container(IMAGE) as (_, root):
        unpacked = subprocess.run(["du", "-sb", root], capture_output=True, text=True, check=True)
    buildah("push", "--compression-format", "gzip", IMAGE, f"oci:{folder / 'oci'}")
    blobs = folder / "oci" / "blobs" / "sha256"
    index = json.loads((folder / "oci" / "index.json").read_text())
    manifest = index["manifests"][0]["digest"].removeprefix("sha256:")
    layers = [layer["size"] for layer in json.loads((blobs / manifest).read_text())["layers"]]
    return {
        "compressed MB": sum(layers) / MB,
        "of which above the base": sum(layers[1:]) / MB,
        "unpacked MB": int(unpacked.stdout.split()[0]) / MB,
    }


def _start_s() -> float:
    """Return the seconds of one start of the image's command."""
    port = free_port()
    configuration = json.loads(buildah("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    command = [*configuration["Entrypoint"], *configuration["Cmd"], "--port", str(port)]
    with container(IMAGE) as (name, _):
        began = time.monotonic()
        server = subprocess.Popen(
            ["buildah", "run", "--isolation", "chroot", name, "--", *command],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert server.stdout is not None
            assert "ready on" in server.stdout.readline()
            return time.monotonic() - began
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(END_LIMIT_S)


if __name__ == "__main__":
    main()
