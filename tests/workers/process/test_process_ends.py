"""A real child of a worker of its own: how it ends, and what is left then."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from batcher.errors import ModelLoadError, WorkerLost
from tests.support.crossing import PATIENCE
from tests.workers.process.test_process_child import MODEL, Bench, batch_of, open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child needs Linux")

TITLE = "model 'm' version 1"
CLOSE = "import os, signal; os.closerange(3, 2**16)"  # as many as its parent may have had
THREAD = "import threading; threading.Thread(target=threading.Event().wait).start()"
"""An interpreter that is taken apart waits for it, for ever."""

WITHOUT_HOOKS = MODEL.replace("def preprocess", "def unused")
"""Never imported in this process."""


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "raise RuntimeError('no weights')",
            f"{TITLE}: RuntimeError: no weights PLACE",
        ),
        ("import os; os._exit(4)", f"{TITLE}: the child exited with status 4, while it loaded"),
        (f"{THREAD}; {CLOSE}", f"{TITLE}: the child exited with status 1, while it loaded"),
        (f"{THREAD}; raise KeyboardInterrupt", f"{TITLE}: KeyboardInterrupt PLACE"),
        (
            f"{CLOSE}; os.kill(os.getpid(), signal.SIGSTOP)",
            f"{TITLE}: it closed its connection and did not end, while it loaded",
        ),
    ],
    ids=["error", "exit", "closed", "interrupted", "stopped"],
)
def test_a_model_that_cannot_be_loaded_fails_the_start_and_leaves_nothing(
    tmp_path: Path, source: str, why: str
) -> None:
    files = open_files()
    bench = Bench(tmp_path, source)
    error = bench.loop.error_of(bench.worker.start(bench._deliver, lambda *change: None))
    assert isinstance(error, ModelLoadError)
    assert str(error) == why.replace("PLACE", f"({tmp_path}/obedient.py:1)")
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert open_files() <= files, (
        "nothing is left; what earlier tests let go of meanwhile may be gone"
    )


def test_quitting_while_the_child_starts_ends_it(tmp_path: Path) -> None:
    files = open_files()
    bench = Bench(tmp_path)
    loaded = bench.worker.start(bench._deliver, lambda *change: None)
    ended = bench.worker.quit()
    assert isinstance(bench.loop.error_of(loaded), ModelLoadError)
    assert bench.loop.wait_for(ended) is None
    assert open_files() <= files, (
        "nothing is left; what earlier tests let go of meanwhile may be gone"
    )


def test_what_a_model_registered_for_the_exit_is_done(tmp_path: Path) -> None:
    at_exit = (
        "import atexit, pathlib; atexit.register(pathlib.Path(__file__).with_name('done').touch)"
    )
    bench = Bench(tmp_path, dedent(WITHOUT_HOOKS) + at_exit)
    bench.start()
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert (tmp_path / "done").exists()


HELPED = (
    dedent(WITHOUT_HOOKS)
    + """
import pathlib
import subprocess

pathlib.Path(__file__).with_name("helper").write_text(str(subprocess.Popen(["sleep", "4242"]).pid))
"""
)


def helper_of(folder: Path) -> int:
    """Return a descriptor of the process that a model in `folder` started last."""
    return os.pidfd_open(int((folder / "helper").read_text()))


def have_ended(*processes: int) -> bool:
    """Wait for processes to end, and close their descriptors; return whether all have."""
    ended = [bool(select.select([process], [], [], PATIENCE)[0]) for process in processes]
    for process in processes:
        os.close(process)
    return all(ended)


@pytest.mark.parametrize("word", [b"die", b"leave", b"quit"])
def test_processes_that_a_model_started_end_with_the_child(tmp_path: Path, word: bytes) -> None:
    bench = Bench(tmp_path, HELPED)
    bench.start()
    helper = helper_of(tmp_path)
    if word != b"quit":
        assert isinstance(bench.run(word).error, WorkerLost)
        bench.restarted()
        assert have_ended(helper)
        helper = helper_of(tmp_path)
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert have_ended(helper)


APART = (
    dedent(WITHOUT_HOOKS)
    + """
class Obedient(Obedient):
    def tell(self, path):
        if os.fork() == 0:  # a daemon: it leaves the group, and has what the child had open
            os.setsid()
            with open(path, "w") as told:
                told.write(str(os.getpid()))
            signal.pause()
"""
)


def test_a_killed_child_is_replaced_while_a_daemon_of_its_model_s_holds_its_end_of_a_message(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, APART)
    bench.start()
    os.mkfifo(tmp_path / "daemon")
    bench.worker.do(batch_of(b"stop and tell " + bytes(tmp_path / "daemon")))
    daemon = int((tmp_path / "daemon").read_text())
    try:
        bench.loop.clock.advance(60)
        assert isinstance(bench.outcome().error, WorkerLost)
        assert bench.restarted() == "a batch has run for more than 60 s"
    finally:
        os.kill(daemon, signal.SIGKILL)
    assert bench.loop.wait_for(bench.worker.quit()) is None


def test_how_a_child_ended_is_told_also_where_no_more_files_can_be_opened(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WITHOUT_HOOKS)
    bench.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        outcome = bench.run(b"leave")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert str(outcome.error) == "the worker was lost: the child exited with status 3"
    assert bench.loop.wait_for(bench.worker.quit()) is None


PARENT = """
    import os
    import sys
    from pathlib import Path
    from tests.workers.process.test_process_child import Bench, pid_of, batch_of
    from tests.workers.process.test_process_ends import HELPED
    deaf = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    bench = Bench(Path(sys.argv[1]), HELPED + deaf * (sys.argv[2] == "deaf"))
    bench.start()
    child = pid_of(bench.run(b"a"))
    if "hang" in sys.argv[2]:
        bench.worker.do(batch_of(b"hang"))
    if sys.argv[2] == "hang" or os.fork():
        print(child, flush=True)
    sys.stdin.read(1)
"""


@pytest.mark.parametrize("case", ["hang", "fork", "hang and fork", "deaf"])
def test_the_child_and_what_it_started_end_when_the_parent_is_killed(
    tmp_path: Path, case: str
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
    command = [sys.executable, "-c", dedent(PARENT), str(tmp_path), case]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        processes = os.pidfd_open(int(parent.stdout.readline())), helper_of(tmp_path)
        parent.kill()
        parent.wait()
        assert have_ended(*processes), "also when a copy of the parent holds all that it held"
