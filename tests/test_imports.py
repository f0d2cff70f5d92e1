"""The rules of the house: rows, circles, owners of libraries, sizes.

Data flows one way, so a file imports only from rows above its own. Each library has one home. A
file is one noun of at most 400 lines. What the rooms are for stands in `docs/architecture.md`.

Each rule is first held against `batcher/` itself and then against a small package in `tmp_path`
that breaks it, because a check that cannot fail proves nothing.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.house import (
    House,
    circles,
    crossing_imports,
    imports_between,
    large_classes,
    long_files,
    long_functions,
    stolen_libraries,
    strange_entries,
    upward_imports,
    wide_lines,
)

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "batcher"
GENERATED = PACKAGE / "frontends" / "grpc" / "_generated"

ROWS = {
    "errors": 0,
    "core": 1,
    "config": 2,
    "codecs": 2,
    "models": 3,
    "client": 3,
    "batching": 4,
    "workers": 5,
    "serving": 6,
    "frontends": 7,
    "app": 8,
    "testing": 8,
    "__main__": 9,
}
"""The row of each entry at the root. Entries of one row do not import each other."""

ENTRIES = {"errors.py", "testing.py", *(ROWS.keys() - {"errors", "testing", "__main__"})}
DOOR = {"__init__.py", "__main__.py", "py.typed"}

BALANCING = ["client/balancer", "client/balanced_blocking"]
"""What looks after several servers does so on a thread of its own, in all forms of the client."""

OWNERS = {
    "pydantic": ["config"],
    "yaml": ["config"],
    "msgpack": ["codecs"],
    "orjson": ["codecs"],
    "PIL": ["codecs", "models/torchserve"],
    "multipart": ["codecs"],
    "pyarrow": ["codecs"],
    "torch": ["models"],
    "safetensors": ["models"],
    "onnxruntime": ["models"],
    "sklearn": ["models/tables"],
    "joblib": ["models/tables"],
    "pandas": ["models/tables"],
    "xgboost": ["models/tables"],
    "lightgbm": ["models/tables"],
    "keras": ["models/pytorch"],
    # The pump is a program of its own, which only the standard library is there for. Threads of
    # other programs share a client. Hooks of a model, which threads of `workers` call, have a lock.
    "threading": [
        "workers",
        "models/hook_turns",
        "models/pytorch/streams",
        "app/outputs/pump",
        "client/shared_sockets",
        *BALANCING,
    ],
    "multiprocessing": ["workers"],
    "concurrent": ["workers"],
    "ray": ["workers"],
    "pynvml": ["serving/nvml"],
    "prometheus_client": ["serving"],
    "obstore": ["serving"],
    "txredisapi": ["serving"],
    "opentelemetry": ["serving"],
    "klein": ["frontends/web"],
    "httptools": ["frontends/web", "client"],
    "dns": ["client/registries/dns_srv"],
    "kazoo": ["client/registries/zookeeper"],
    "twisted.web": ["frontends/web"],
    "grpc": ["frontends/grpc"],
    "grpc_health": ["frontends/grpc"],
    "grpc_reflection": ["frontends/grpc"],
    "google": ["frontends/grpc"],
    "zmq": [
        "frontends/zeromq",
        "client/zeromq",
        "client/zeromq_async",
        "client/zeromq_blocking",
        "client/zeromq_twisted",
    ],
    "asyncio": ["app", "frontends/grpc", "frontends/listening", "client"],
    "twisted.application": ["app"],
    "twisted.internet.reactor": ["app"],
    "uvloop": ["app"],
    "click": ["app"],
    "rich": ["app"],
    # Deferreds begin where requests wait. Above that row only two small tools know them, and the
    # client's Twisted form, which is no part of the server.
    "twisted": [
        "core/alarm",
        "core/waiters",
        "client/deferred",
        "client/twisted_calls",
        "client/zeromq_twisted",
        "batching",
        "workers",
        "serving",
        "frontends",
        "app",
        "testing",
    ],
}
"""Where each library may be imported: folders or files, as paths from `batcher/`."""

MAX_FILE_LINES = 400
MAX_CLASS_METHODS = 20
MAX_FUNCTION_LINES = 25
MAX_LONG_FUNCTIONS = 4
MAX_COLUMNS = 100


HOUSE = House(PACKAGE)
EACH_MODULE = pytest.mark.parametrize("module", sorted(HOUSE.paths))
# What the protocol compiler makes is as long as it likes.
WRITTEN = [path for path in HOUSE.paths.values() if not path.is_relative_to(GENERATED)]
EACH_FILE = pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))


def small_house(folder: Path, files: dict[str, str]) -> House:
    """Build a package named `batcher` out of texts, each by its path, and read it."""
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / "batcher" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(folder / "batcher")


def tracked_python_files() -> list[Path]:
    git = ("git", "-C", str(ROOT), "ls-files", "-z", "*.py")
    listing = subprocess.run(git, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("needs a checkout of the repository")
    names = [name for name in listing.stdout.split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).exists()]


@EACH_MODULE
def test_a_file_imports_only_from_rows_above_its_own(module: str) -> None:
    assert upward_imports(HOUSE, ROWS, module) == []


@pytest.mark.parametrize(
    "text",
    [
        "from batcher.serving.server import ModelServer\n",
        "import batcher.serving.server\n",
        "from batcher.serving import server\n",
        "def later():\n    from batcher.serving import server\n",
        "if TYPE_CHECKING:\n    from batcher.serving.server import ModelServer\n",
    ],
)
def test_an_import_against_the_rows_is_found_wherever_it_stands(tmp_path: Path, text: str) -> None:
    house = small_house(tmp_path, {"core/spec.py": text, "serving/server.py": ""})
    assert upward_imports(house, ROWS, "batcher.core.spec") == [
        "batcher.core.spec (row 1) imports batcher.serving.server (row 6)"
    ]


def test_rooms_of_one_row_do_not_import_each_other(tmp_path: Path) -> None:
    house = small_house(
        tmp_path,
        {"config/reading.py": "import batcher.codecs.npy\n", "codecs/npy.py": ""},
    )
    assert upward_imports(house, ROWS, "batcher.config.reading") == [
        "batcher.config.reading (row 2) imports batcher.codecs.npy (row 2)"
    ]


def test_rooms_take_the_version_from_the_door_and_nothing_else(tmp_path: Path) -> None:
    house = small_house(
        tmp_path,
        {
            "__init__.py": "from batcher.app.cli import main\n",
            "app/cli.py": "from batcher import __version__\n",
            "app/run.py": "from batcher import ModelServer\n",
        },
    )
    assert upward_imports(house, ROWS, "batcher") == []
    assert upward_imports(house, ROWS, "batcher.app.cli") == []
    assert upward_imports(house, ROWS, "batcher.app.run") == [
        "batcher.app.run comes in by the door, which is for users"
    ]
    assert circles(house) == []


def test_the_ways_in_share_the_endpoints_and_the_ports_and_nothing_else() -> None:
    assert crossing_imports(HOUSE, "frontends", "endpoints", "listening") == []


def test_an_import_between_two_ways_in_is_found(tmp_path: Path) -> None:
    house = small_house(
        tmp_path,
        {
            "frontends/web/front.py": "from batcher.frontends.endpoints import call\n",
            "frontends/grpc/front.py": "from batcher.frontends.web import front\n",
            "frontends/endpoints/call.py": "from batcher.frontends.web.front import Front\n",
        },
    )
    assert crossing_imports(house, "frontends", "endpoints") == [
        "batcher.frontends.endpoints.call imports batcher.frontends.web.front",
        "batcher.frontends.grpc.front imports batcher.frontends.web.front",
    ]


def test_serving_knows_no_codecs() -> None:
    assert imports_between(HOUSE, "serving", "codecs") == []


def test_an_import_of_codecs_in_serving_is_found(tmp_path: Path) -> None:
    house = small_house(
        tmp_path, {"serving/server.py": "import batcher.codecs.npy\n", "codecs/npy.py": ""}
    )
    assert imports_between(house, "serving", "codecs") == [
        "batcher.serving.server imports batcher.codecs.npy"
    ]


def test_files_do_not_import_each_other_in_circles() -> None:
    assert circles(HOUSE) == []


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        (
            {"core/a.py": "import batcher.core.b\n", "core/b.py": "import batcher.core.a\n"},
            ["batcher.core.a", "batcher.core.b"],
        ),
        (
            {
                "core/a.py": "if TYPE_CHECKING:\n    import batcher.core.b\n",
                "core/b.py": "import batcher.core.c\n",
                "core/c.py": "def later():\n    from batcher.core.a import A\n",
            },
            ["batcher.core.a", "batcher.core.b", "batcher.core.c"],
        ),
        (
            {
                "core/__init__.py": "from batcher.core.a import A\n",
                "core/a.py": "from batcher.core import B\n",
            },
            ["batcher.core", "batcher.core.a"],
        ),
    ],
    ids=["two files", "three files, behind TYPE_CHECKING and in a function", "the package itself"],
)
def test_a_circle_is_found(tmp_path: Path, files: dict[str, str], circle: list[str]) -> None:
    assert circles(small_house(tmp_path, files)) == [circle]


def test_files_that_share_what_they_import_are_no_circle(tmp_path: Path) -> None:
    house = small_house(
        tmp_path,
        {
            "core/a.py": "import batcher.core.b\nimport batcher.core.c\n",
            "core/b.py": "import batcher.core.c\n",
            "core/c.py": "",
        },
    )
    assert circles(house) == []


def test_nothing_new_lies_at_the_root() -> None:
    assert len(ENTRIES) == 12
    assert strange_entries(PACKAGE, ENTRIES | DOOR) == []
    assert {entry.name for entry in PACKAGE.iterdir()} >= ENTRIES


def test_a_new_file_or_folder_at_the_root_is_found(tmp_path: Path) -> None:
    house = small_house(
        tmp_path,
        {
            "core/spec.py": "",
            "helpers.py": "",
            "managers/all.py": "",
            "web/__pycache__/front.cpython-311.pyc": "",
            "core.cpython-311-x86_64-linux-gnu.so": "",
        },
    )
    assert strange_entries(house.root, ENTRIES | DOOR) == ["helpers.py", "managers"]


@EACH_MODULE
def test_a_library_is_imported_only_by_its_owner(module: str) -> None:
    assert stolen_libraries(HOUSE, OWNERS, module) == []


def test_an_import_of_a_library_that_belongs_elsewhere_is_found(tmp_path: Path) -> None:
    house = small_house(
        tmp_path,
        {
            "core/alarm.py": "from twisted.internet.interfaces import IReactorTime\n",
            "core/spec.py": "if TYPE_CHECKING:\n    from twisted.internet.defer import Deferred\n",
            "frontends/web/klein_app.py": "from klein import Klein\n",
            "frontends/webbing.py": "import klein\n",
            "serving/server.py": "def later():\n    from twisted.internet import reactor\n",
            "codecs/npy.py": "import torchvision\n",
        },
    )
    found = [
        sentence.partition(",")[0]
        for module in house.paths
        for sentence in stolen_libraries(house, OWNERS, module)
    ]
    assert found == [
        "batcher.core.spec imports twisted.internet.defer.Deferred",
        "batcher.frontends.webbing imports klein",
        "batcher.serving.server imports twisted.internet.reactor",
    ]


@EACH_FILE
def test_no_file_is_longer_than_four_hundred_lines(path: Path) -> None:
    assert long_files([path], MAX_FILE_LINES) == []


@EACH_FILE
def test_no_class_has_more_than_twenty_methods(path: Path) -> None:
    assert large_classes([path], MAX_CLASS_METHODS) == []


def test_hardly_a_function_is_longer_than_twenty_five_lines() -> None:
    found = long_functions(WRITTEN, MAX_FUNCTION_LINES)
    assert len(found) <= MAX_LONG_FUNCTIONS, found


def test_no_line_has_more_than_a_hundred_columns() -> None:
    files = [path for path in tracked_python_files() if not path.is_relative_to(GENERATED)]
    assert wide_lines(files, MAX_COLUMNS) == []


def test_what_is_too_large_is_found(tmp_path: Path) -> None:
    path = tmp_path / "large.py"
    methods = "    async def step(self): ...\n" * 3
    path.write_text(f"class Large:\n    limit = 1\n{methods}\n\ndef long():\n" + "    pass\n" * 4)
    assert long_files([path], 11) == [f"{path}: 12 lines"]
    assert long_files([path], 12) == []
    assert large_classes([path], 2) == [f"{path}:1 Large: 3 methods"]
    assert large_classes([path], 3) == []
    assert long_functions([path], 4) == [f"{path}:8 long: 5 lines"]
    assert long_functions([path], 5) == []
    assert wide_lines([path], 28) == [f"{path}:{number}: 29 columns" for number in (3, 4, 5)]
    assert wide_lines([path], 29) == []
