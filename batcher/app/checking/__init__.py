"""`batcher check --model`: hold a model against the contract before it serves anybody.

    check -> samples (the rows) -> batches (the plan) -> runs (one batch) -> comparing (answers)

`contract` defines a rule, a finding and a report, `rules` lists every rule, and `report_text`
writes a report for a terminal.

`configuration` is the check without `--model`, which loads nothing; `entry` looks there for the
class that a `model.yaml` names.
"""
