"""What a worker that has ended holds on to no longer.

A version of a model and its workers hold on to each other, in circles. The garbage collector frees
circles, but not those that were there when it was told to leave alone what is there, once the first
model has imported its libraries (`app/process_settings.py`). By then the versions of the start are
made. So whatever has ended opens its circles itself, and a version of the start is freed like any
other when a reload has replaced it.
"""

from __future__ import annotations


def let_go(owner: object, *names: str) -> None:
    """Forget the attributes `names` of `owner`, as far as it has them. Any thread."""
    for name in names:
        owner.__dict__.pop(name, None)
