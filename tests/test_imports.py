"""The import rule: data flows one way, so a module imports only from rows above its own.

Owned libraries have one home.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = {
    "errors": 0,
    "error_text": 0,
    "inherited": 0,
    "spec": 1,
    "request": 2,
    "config": 2,
    "quotas": 3,
    "counters": 1,
    "metrics": 2,
    "codecs": 3,
    "scheduling": 3,
    "client": 4,
    "models": 4,
    "report_text": 5,
    "workers": 5,
    "failure_log": 6,
    "pending": 6,
    "endings": 6,
    "scheduler": 6,
    "charging": 6,
    "served": 7,
    "catalogue": 7,
    "given": 7,
    "rollout": 7,
    "reloading": 7,
    "hooks": 7,
    "server": 7,
    "repository": 7,
    "endpoints": 8,
    "web": 9,
    "rpc": 9,
    "heap_trim": 10,
    "service": 10,
    "tap": 11,
    "loop_ports": 11,
    "running": 11,
    "cli": 11,
}
SAME_ROW = {
    ("endings", "failure_log"),
    ("endings", "pending"),
    ("scheduler", "endings"),
    ("scheduler", "pending"),
    ("served", "hooks"),
    ("catalogue", "served"),
    ("server", "served"),
    ("server", "catalogue"),
    ("rollout", "served"),
    ("rollout", "server"),
    ("rollout", "given"),
    ("repository", "served"),
    ("repository", "server"),
    ("repository", "given"),
    ("repository", "rollout"),
    ("running", "loop_ports"),
    ("cli", "running"),
}
"""Modules of one row that are halves of one thing, in the direction that is allowed."""

OWNERS = {
    "pydantic": {"config"},
    "yaml": {"config"},
    "prometheus_client": {"metrics"},
    "msgpack": {"codecs"},
    "orjson": {"codecs"},
    "PIL": {"codecs"},
    "multipart": {"codecs"},
    "torch": {"models"},
    "safetensors": {"models"},
    "onnxruntime": {"models"},
    "threading": {"workers"},
    "multiprocessing": {"workers"},
    "concurrent": {"workers"},
    "ray": {"workers"},
    "klein": {"web"},
    "twisted.web": {"web", "client"},
    "httpx": {"client"},
    "treq": {"client"},
    "httptools": {"web"},
    "grpc": {"rpc"},
    "grpc_health": {"rpc"},
    "google": {"rpc"},
    "twisted.application": {"service", "tap"},
    "twisted.internet.reactor": {"cli", "running", "tap"},
    "asyncio": {"cli", "running", "loop_ports", "rpc", "client"},
    "uvloop": {"cli", "running"},
    "click": {"cli"},
    "rich": {"cli"},
}
MODULES = sorted((ROOT / "batcher").rglob("*.py"))


def part(path: Path) -> str:
    """Return the module or package of the table that `path` belongs to."""
    return path.relative_to(ROOT / "batcher").with_suffix("").parts[0]


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that `path` imports, imports for type checking alone left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_rows_above_its_own(path: Path) -> None:
    own = part(path)
    for name in imported(path):
        if (
            own == "__init__"
            or not name.startswith("batcher.")
            or name.startswith("batcher.__version__")
        ):
            continue
        other = name.split(".")[1]
        allowed = other == own or (own, other) in SAME_ROW or ROWS[other] < ROWS[own]
        assert allowed, f"{own} (row {ROWS[own]}) imports {name} (row {ROWS[other]})"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_library_is_imported_only_by_its_owner(path: Path) -> None:
    for name in imported(path):
        for library, owners in OWNERS.items():
            if name == library or name.startswith(f"{library}."):
                assert part(path) in owners, (
                    f"{path.name} imports {name}, which belongs to {', '.join(owners)}"
                )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_twisted_is_used_from_the_workers_on_down_only(path: Path) -> None:
    own = part(path)
    uses_twisted = any(name.startswith("twisted.") for name in imported(path))
    knows = (
        own == "client" or not uses_twisted
    )  # one of the client's forms is Twisted's; it is no part of the server
    assert knows or ROWS[own] >= ROWS["workers"], f"{own} must not know Twisted"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_three_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_the_table_knows_every_module() -> None:
    assert {part(path) for path in MODULES} - {"__init__"} <= set(ROWS)
