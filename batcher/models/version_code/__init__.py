"""The Python files in a version folder, imported as a package that one definition owns.

Two models, or two versions of a model, may hold files of the same name, say `network.py`. Imported
under their plain names such modules would take each other's place in `sys.modules`, which belongs
to the whole process. So the folder becomes a package below this one:

    /models/digits/2/network.py  ->  batcher.models.version_code.v17__2fmodels_2fdigits_2f2.network

17 counts loads, and the rest is the folder's path (`names.py`). So a fresh interpreter finds the
module by its name alone: functions of a model can be handed to processes that `multiprocessing`
starts. Importing this package puts the finder for such names into `sys.meta_path`.

Modules of the folder import each other relatively (`from .network import Net`), or by their plain
names (`import network`), which come before installed modules, but not before those of the standard
library (`local_imports.py`). Folders that the model puts into `sys.path` become packages as well,
so that each model has the modules there for itself (`own_path.py`). Which folder a plain name means
is decided when the import runs (`homes.py`). Pickles and `import_module` find plain names too, each
model its own (`plain_names.py`).

    event                                 what happens
    a definition is loaded first          the `.py` files are read, all of them; modules are made
    another instance of it loads          the same modules: a file is imported once
    the files change                      nothing: late imports take what was read at first
    a load fails, others are loaded       nothing: each definition has modules of its own
    nobody holds the definition any more  its names are removed from `sys.modules`

Whoever runs a model holds its definition. Bytecode is neither read nor written, not even where the
model loads a file beside it by itself (`bytecode.py`): Python would take an old `.pyc` for a file
that was changed twice within a second and has kept its size.
"""

from __future__ import annotations

import sys

from batcher.models.version_code.bytecode import use_no_bytecode
from batcher.models.version_code.finder import VersionFinder
from batcher.models.version_code.plain_names import (
    belong_to,
    calling_package,
    forget_plain_names,
    keep_plain_names,
)

__all__ = ["belong_to", "calling_package", "forget_plain_names", "keep_plain_names"]

sys.meta_path.insert(0, VersionFinder())
use_no_bytecode()
