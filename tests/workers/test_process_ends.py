"""A real child of a worker of its own: how it ends, and what is left then."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from batcher.errors import ModelLoadError
from tests.support.crossing import PATIENCE
from tests.workers.test_process_child import MODEL, Bench, open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child needs Linux")

TITLE = "model 'm' version 1"
CLOSE = "import os, signal; os.closerange(3, 99)"
THREAD = "import threading; threading.Thread(target=threading.Event().wait).start()"
"""An interpreter that is taken apart waits for it, for ever."""

WITHOUT_HOOKS = MODEL.replace("def preprocess", "def unused")
"""Never imported in this process."""


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('no weights')", f"{TITLE}: RuntimeError: no weights"),
        ("import os; os._exit(4)", f"{TITLE}: the child exited with status 4, while it loaded"),
        (f"{THREAD}; {CLOSE}", f"{TITLE}: the child exited with status 1, while it loaded"),
        (f"{THREAD}; raise KeyboardInterrupt", f"{TITLE}: KeyboardInterrupt"),
        (
            f"{CLOSE}; os.kill(os.getpid(), signal.SIGSTOP)",
            f"{TITLE}: it closed its connection and did not end, while it loaded",
        ),
    ],
    ids=["error", "exit", "closed", "interrupted", "stopped"],
)
def test_a_model_that_cannot_be_loaded_fails_the_start_and_leaves_nothing(tmp_path: Path, source: str, why: str) -> None:
    files = open_files()
    bench = Bench(tmp_path, source)
    error = bench.loop.error_of(bench.worker.start(bench._deliver, lambda *change: None))
    assert isinstance(error, ModelLoadError)
    assert str(error) == why
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert open_files() <= files, "nothing is left; what earlier tests let go of meanwhile may be gone"


def test_quitting_while_the_child_starts_ends_it(tmp_path: Path) -> None:
    files = open_files()
    bench = Bench(tmp_path)
    loaded = bench.worker.start(bench._deliver, lambda *change: None)
    ended = bench.worker.quit()
    assert isinstance(bench.loop.error_of(loaded), ModelLoadError)
    assert bench.loop.wait_for(ended) is None
    assert open_files() <= files, "nothing is left; what earlier tests let go of meanwhile may be gone"


def test_what_a_model_registered_for_the_exit_is_done(tmp_path: Path) -> None:
    at_exit = "import atexit, pathlib; atexit.register(pathlib.Path(__file__).with_name('done').touch)"
    bench = Bench(tmp_path, dedent(WITHOUT_HOOKS) + at_exit)
    bench.start()
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert (tmp_path / "done").exists()


PARENT = """
    import sys
    from pathlib import Path
    from tests.workers.test_process_child import Bench, pid_of, batch_of
    bench = Bench(Path(sys.argv[1]))
    bench.start()
    print(pid_of(bench.run(b"a")), flush=True)
    bench.worker.do(batch_of(b"hang"))
    input()
"""


def test_the_child_ends_when_its_parent_is_killed_whatever_the_model_does(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    command = [sys.executable, "-c", dedent(PARENT), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], PATIENCE)
    os.close(child)
    assert ended
