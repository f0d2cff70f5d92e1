"""Results of benchmarks.

A table for people and JSON for programs, with date, machine and command beside every figure.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, interpreter and libraries.

    No names of hosts, no paths.
    """
    import torch

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
    }


def write_results(
    name: str,
    title: str,
    rows: Sequence[Row],
    remarks: Sequence[str] = (),
    folder: Path = RESULTS,
) -> str:
    """Write `rows` as `NAME.json` and `NAME.md` into `folder`, and return the table.

    Args:
        name: of the files, without an ending.
        title: what was measured, in a line.
        rows: one mapping of column to value a row; all with the same columns.
        remarks: sentences below the table.
        folder: of the files; another one than that of the results for a run that is none.
    """
    folder.mkdir(exist_ok=True)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "machine": machine(),
    }
    document = {"title": title, **about, "rows": list(rows), "remarks": list(remarks)}
    (folder / f"{name}.json").write_bytes(
        orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"
    )
    facts = ", ".join(
        f"{key} {value}" for key, value in about["machine"].items() if value is not None
    )
    text = f"# {title}\n\n{about['date']}, `{about['command']}`, {facts}.\n\n{table(rows)}\n"
    if remarks:
        text += "\n" + "\n".join(f"- {remark}" for remark in remarks) + "\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return text


def command() -> str:
    """Return the command line of this process, as one would type it in the repository's root."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT) if script.is_relative_to(ROOT) else Path(script.name)
    return " ".join(["python", str(shown), *sys.argv[1:]])


def table(rows: Sequence[Row]) -> str:
    """Return `rows` as a Markdown table."""
    columns = list(rows[0])
    lines = [
        columns,
        ["---"] * len(columns),
        *([_cell(row[column]) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    """Return the commit of the tree; a bare machine has no git, or a tree without its history."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return found.stdout.strip() or "unknown"
