"""The command line of `batcher check`, which takes options alone."""

from __future__ import annotations

import click


class CheckCommand(click.Command):
    """Says of a model that is named without `--model` where its name belongs."""

    allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `args`. Raises UsageError: one of them is no option."""
        rest = super().parse_args(ctx, args)
        if ctx.args:
            ctx.fail(f"expected --model before a model; write: batcher check --model {ctx.args[0]}")
        return rest
