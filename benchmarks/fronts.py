"""What several fronts bring over one process, on the cores that there are.

Both servers have the same models, which take next to no time: what is left is HTTP, decoding and
encoding. wrk asks in a closed loop, and has a core less to itself the more cores the server uses.
The servers alternate within a round, and the table has medians over the rounds.

Of few connections all requests are now and then in the hands of one process, while the others wait:
so each load is there with few connections and with four times as many.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
import orjson
from PIL import Image

from benchmarks.reporting import write_results
from benchmarks.serving import running_server
from benchmarks.wrk import OCTETS, Measured, require_wrk, run_wrk

ECHO = """class Model:
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""
FIRST = """class Model:
    def predict(self, inputs):
        return {"y": inputs["x"][:, 0, 0, :1].copy()}
"""
FLAT = """format: python
class: model:Model
inputs: [{{name: x, dtype: FP32, shape: [{size}]}}]
outputs: [{{name: y, dtype: FP32, shape: [{size}]}}]
"""
PICTURE = """format: python
class: model:Model
inputs: [{name: x, dtype: FP32, shape: [3, 224, 224], image: {mode: rgb}}]
outputs: [{name: y, dtype: FP32, shape: [1]}]
"""
MODELS = {
    "small": (ECHO, FLAT.format(size=64)),
    "wide": (ECHO, FLAT.format(size=784)),
    "picture": (FIRST, PICTURE),
}


class Load(NamedTuple):
    """What clients send.

    Attributes:
        model: that they ask.
        headers: of each request.
        body: of each request.
        connections: that send it.
    """

    model: str
    headers: Mapping[str, str]
    body: bytes
    connections: int


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fronts", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    options = parser.parse_args()
    require_wrk()
    found: dict[tuple[str, int], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _write_models(Path(folder))
        with (
            running_server(Path(folder), "fronts=0") as alone,
            running_server(Path(folder), f"fronts={options.fronts}") as with_fronts,
        ):
            for _ in range(options.rounds):
                for name, load in _loads().items():
                    for fronts, address in ((0, alone), (options.fronts, with_fronts)):
                        measured = _measured(address, load, options.seconds)
                        found.setdefault((name, fronts), []).append(measured)
    many = options.fronts
    rows = [_row(name, found[name, 0], found[name, many], many) for name in _loads()]
    remarks = [each.replace("\n", " ").strip() for each in __doc__.split("\n\n")[1:]]
    print(write_results("fronts", "Several fronts against one process", rows, remarks))


def _write_models(folder: Path) -> None:
    for name, (source, description) in MODELS.items():
        place = folder / name / "1"
        place.mkdir(parents=True)
        (place / "model.py").write_text(source)
        (place / "model.yaml").write_text(description)


def _loads() -> dict[str, Load]:
    """Return the loads by what the table calls them."""
    random = np.random.default_rng(1)
    values = random.random(784, "f4").round(4).tolist()
    picture = BytesIO()
    pixels = random.integers(0, 255, (64, 64, 3), "u1")
    Image.fromarray(pixels).resize((256, 256)).save(picture, "JPEG")
    json = orjson.dumps({"inputs": {"x": [values]}})
    octets = random.random(64, "f4").tobytes()
    loads = {
        "JSON, 784 floats": Load("wide", {"Content-Type": "application/json"}, json, 64),
        "JPEG of 256 by 256": Load(
            "picture", {"Content-Type": "image/jpeg"}, picture.getvalue(), 16
        ),
        "binary, 64 floats": Load("small", OCTETS, octets, 64),
    }
    return {
        f"{name}, {connections} connections": load._replace(connections=connections)
        for name, load in loads.items()
        for connections in (load.connections, 4 * load.connections)
    }


def _measured(address: str, load: Load, seconds: int) -> Measured:
    url = f"{address}/models/{load.model}/predict"
    with urlopen(Request(url, load.body, dict(load.headers)), timeout=30) as answer:
        answer.read()
    measured = run_wrk(url, load.body, load.connections, seconds, load.headers)
    if measured.errors:
        raise RuntimeError(f"{measured.errors} requests to {url} have failed")
    return measured


def _row(
    name: str, alone: list[Measured], with_fronts: list[Measured], fronts: int
) -> dict[str, Any]:
    one, many = (median(each.rate for each in runs) for runs in (alone, with_fronts))
    p99 = [f"{median(each.p99 for each in runs):.1f}" for runs in (alone, with_fronts)]
    return {
        "load": name,
        "one process, requests/s": f"{one:,.0f}",
        f"{fronts} fronts, requests/s": f"{many:,.0f}",
        "ratio": f"{many / one:.2f}",
        "p99 of one, ms": p99[0],
        "p99 with fronts, ms": p99[1],
    }


if __name__ == "__main__":
    main()
