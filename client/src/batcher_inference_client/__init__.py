"""Lets `import batcher` find the copy in this folder, where no other `batcher` is installed.

Python reads a line in `zz_batcher_inference_client.pth` when it starts, and with it this module.
Where no such files are read, as in the folder of `pip install --target`, `import
batcher_inference_client` does the same. The finder is asked last, so a server that is installed
beside the client, from a checkout too, brings its own client.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from os.path import dirname, join

FOLDER = join(dirname(__file__), "batcher")


class CopyFinder(MetaPathFinder):
    """Finds the package `batcher` in this folder; its modules are then found in its own."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        """Return where `batcher` is; None for every other module."""
        if name != "batcher":
            return None
        return spec_from_file_location(
            name, join(FOLDER, "__init__.py"), submodule_search_locations=[FOLDER]
        )


if not any(type(finder).__name__ == "CopyFinder" for finder in sys.meta_path):
    sys.meta_path.append(CopyFinder())
