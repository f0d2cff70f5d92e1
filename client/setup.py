"""Packaging of the client by itself: `pip install batcher-inference-client`.

The client has one home, `batcher/client/`, and the server's distribution brings it along. This
distribution holds copies of the same files, those of `files.txt`, for machines without the server:
with the server come PyTorch, Twisted and twenty other libraries, of which a client needs three.

Both may be installed on one machine, in any order, and either may go. So the copies do not lie in
`site-packages/batcher`, where two distributions would own the same files, and whoever goes first
would take them along. They lie in a folder of their own, in which Python looks for `batcher` after
everywhere else (`src/batcher_inference_client/__init__.py`): where the server is installed its own
client is imported, else the copy.

Refused alternatives: extras of one distribution cannot take requirements away, so the server would
need one to be installed at all; a server that depends on the client's distribution cannot be
installed from a checkout, since that distribution would have to be on an index first; a folder that
is put into Python's path hides a server that is installed from a checkout with `-e`.
"""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
ROOT = HERE.parent
FOLDER = "batcher_inference_client"
COPIES = HERE / "src" / FOLDER
PATH_FILE = f"zz_{FOLDER}.pth"  # read last, after those of editable installations

if (ROOT / "batcher" / "client").is_dir():  # a checkout; an archive of sources has the copies
    shutil.rmtree(COPIES / "batcher", ignore_errors=True)
    for name in (HERE / "files.txt").read_text().split():
        (COPIES / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, COPIES / name)
    shutil.copyfile(ROOT / "LICENSE", HERE / "LICENSE")

VERSION = next(
    line.split('"')[1]
    for line in (COPIES / "batcher" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)


class BuildWithPath(build_py):
    """Adds the line that Python reads when it starts."""

    def run(self) -> None:
        """Build, without what an earlier build left, and add the file beside the folder."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        Path(self.build_lib, PATH_FILE).write_text(f"import {FOLDER}\n")


setup(
    name="batcher-inference-client",
    version=VERSION,
    description="The client of batcher, an asynchronous batching inference server",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_namespace_packages(str(HERE / "src")),
    install_requires=["numpy>=2.0", "orjson>=3.10", "httptools>=0.6.4"],
    extras_require={
        "twisted": ["twisted[tls]>=24.10"],
        "zeromq": ["pyzmq>=26", "msgpack>=1.1"],
        "dns": ["dnspython>=2.6"],
        "zookeeper": ["kazoo>=2.10"],
    },
    cmdclass={"build_py": BuildWithPath},
)
