"""Driving wrk, a closed-loop HTTP load generator, and reading its figures."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

SETTLE_S = 0.3
"""Seconds in which the server measured before finishes the requests that its clients have left."""

OCTETS = {"Content-Type": "application/octet-stream"}

_SCRIPT = """
wrk.method = "POST"
{headers}
local file = io.open("{body}", "rb")
wrk.body = file:read("*all")
file:close()
local paths, requests, turn = {{{paths}}}, {{}}, 0
if #paths > 0 then
  init = function()
    for index, path in ipairs(paths) do requests[index] = wrk.format(nil, path) end
  end
  request = function()
    turn = turn % #paths + 1
    return requests[turn]
  end
end
done = function(summary, latency, requests)
  local failed = summary.errors
  io.write(string.format(
    '\\nJSON{{"requests": %d, "us": %d, "errors": %d, "p50": %d, "p99": %d}}\\n',
    summary.requests, summary.duration,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of wrk.

    Attributes:
        rate: answers/s.
        p50: median latency in ms.
        p99: 99th percentile of latency in ms.
        errors: connections and answers that failed.
    """

    rate: float
    p50: float
    p99: float
    errors: int


def require_wrk() -> None:
    """Exit with a message if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian: apt-get install wrk")


def run_wrk(
    url: str,
    body: bytes,
    connections: int,
    seconds: int,
    headers: Mapping[str, str] = OCTETS,
    paths: Sequence[str] = (),
) -> Measured:
    """POST `body` to `url` over so many connections in a closed loop, and return the figures.

    With `paths` these are asked in turn, in place of that of `url`. One thread of wrk sends; it
    starts when the server measured before has settled.
    """
    time.sleep(SETTLE_S)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        script = Path(folder) / "post.lua"
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        quoted = ", ".join(f'"{path}"' for path in paths)
        text = _SCRIPT.format(headers=lines, body=Path(folder) / "body", paths=quoted)
        script.write_text(text)
        arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
        arguments += ["-s", str(script), url]
        output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    found = orjson.loads(output.partition("JSON")[2])
    return Measured(
        rate=found["requests"] / found["us"] * 1e6,
        p50=found["p50"] / 1e3,
        p99=found["p99"] / 1e3,
        errors=found["errors"],
    )
