"""Commands of a `console` block, and whether what they print is what the page shows.

    $ curl localhost:8080/livez
    > --verbose                   goes on with the command
    {"alive":true}                is the output

`…` in an output stands for anything, and a number for one that is close to it: the last digits
of a score depend on the processor.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:[eE][+-]?\d+)?(?![\w.]*[a-zA-Z])")
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Command:
    """A command and the output that the page shows, empty where the page shows none."""

    text: str
    output: str


def commands(block: str) -> list[Command]:
    """Return the commands of a block of kind `console`."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
            continue
        assert found, f"expected a line that begins with '$ '; got {line!r}"
        text, output = found[-1]
        goes_on = not output and (line.startswith("> ") or text[-1].endswith("\\"))
        (text if goes_on else output).append(line.removeprefix("> ") if goes_on else line)
    return [Command("\n".join(text), "\n".join(output)) for text, output in found]


def differs(expected: str, got: str) -> str:
    """Return how `got` differs from what a page shows; empty if it does not."""
    shown, came = " ".join(expected.split()), " ".join(got.split())
    if not shown:
        return ""
    pattern = re.escape(NUMBER.sub("\0", shown)).replace("\0", r"(-?\d[\d.eE+-]*)")
    found = re.fullmatch(pattern.replace("…", ".*?"), came, re.DOTALL)
    if found is None:
        return f"expected {expected}\ngot {got}"
    wrong = [
        f"expected about {want}; got {have}"
        for want, have in zip(NUMBER.findall(shown), found.groups(), strict=True)
        if not math.isclose(float(want), float(have), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    ]
    return "\n".join(wrong)
