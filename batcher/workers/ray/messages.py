"""What the server and an actor say to each other, besides `process/messages.py`.

| call of the server | group | the actor answers |
|---|---|---|
| `hear`, again after each answer | hear | a list of `LoadProgress`, `LoadPaused` and so on |
| `load`, once | | None, when the model is loaded or cannot be |
| `run`, one batch after the other | | `RowsDone` or `DescribedError` |
| `run_hook`, several at once | hooks | `HookDone` or `DescribedError` |

Calls without a group run on one thread of the actor, the inference thread, in the order in which
they were made. The last thing that `hear` answers is `LoadDone` or `LoadFailed`. The call after
that is never answered, and fails when the actor ends: so the server learns of an end while no batch
runs.
"""

from __future__ import annotations

from typing import NamedTuple

from batcher.core.device_work import DeviceWork
from batcher.core.spec import Array
from batcher.workers.process.described_error import DescribedError

HEAR, HOOKS = "hear", "hooks"

HOOK_THREADS = 8
"""Hooks of one actor that run at once; the next ones wait. More than a node has cores for gains
nothing.
"""

GROUPS = {HEAR: 1, HOOKS: HOOK_THREADS}
"""The groups of calls, each with its number of threads in the actor."""


class RowsDone(NamedTuple):
    """From the actor: a batch has run.

    Attributes:
        outputs: name to array.
        failed: why single rows failed, by the index of the row.
        work: as in Outcome.
    """

    outputs: dict[str, Array]
    failed: dict[int, DescribedError]
    work: DeviceWork | None
