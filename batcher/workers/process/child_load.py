"""A load in another process than the server's, and what that process tells of the load.

The process is a child of the server, or an actor of Ray; the model is alone in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.load_pause import pause_with
from batcher.models.loading import load_model
from batcher.models.version_code import keep_plain_names
from batcher.workers.own_processes import follow_processes
from batcher.workers.own_threads import follow_threads
from batcher.workers.process.messages import (
    POSTPROCESS,
    PREPROCESS,
    LoadDone,
    LoadFailed,
    LoadPaused,
    LoadProgress,
    Prepare,
)


def load_and_tell(prepare: Prepare, tell: Callable[[object], object]) -> CheckedModel | None:
    """Load the model, and `tell` how the load goes on; None if the model cannot be loaded.

    The caller tells when the model is loaded. Inference thread.
    """

    @contextmanager
    def pause() -> Iterator[None]:
        tell(LoadPaused())
        yield

    def report(text: str) -> None:
        tell(LoadProgress(text))

    follow_threads()
    follow_processes()
    try:
        with pause_with(pause):
            model = load_model(prepare.definition, prepare.settings, report, is_alone=True)
    except ModelLoadError as err:
        tell(LoadFailed(str(err), err.stage))
        return None
    keep_plain_names()
    return model


def load_done(model: CheckedModel) -> LoadDone:
    """Return the message that `model` is loaded. Inference thread."""
    loaded = model.loaded()
    hooks = tuple(name for name in (PREPROCESS, POSTPROCESS) if getattr(loaded, name) is not None)
    facts = loaded.max_rows, loaded.overflow_rows, loaded.sample, loaded.length_timings
    handing = loaded.hands_over, loaded.whole_requests
    return LoadDone(loaded.timings, hooks, *facts, loaded.run_sizes, *handing)
