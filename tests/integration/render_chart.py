"""Renders a chart with Helm's own library: `render_chart.py CHART RELEASE < VALUES > RENDERED`.

Values and what is rendered are JSON. It runs in the environment of `tools.txt`, and the release is
in the namespace `shop`.
"""

import json
import sys

import helm_python

values = json.load(sys.stdin)
with helm_python.Chart.load(sys.argv[1]) as chart:
    texts = chart.render(values, name=sys.argv[2], namespace="shop")
found = helm_python.lint(sys.argv[1], values, strict=True, namespace="shop")
faults = [*found["errors"], *(each for each in found["messages"] if each["severity"] > 1)]
json.dump({"texts": texts, "faults": faults}, sys.stdout)
