"""`batcher.serve(Model)`: from a script, which it holds up, and from a notebook, which it does not.

A notebook is a program whose main thread runs an event loop; so is the program here.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.end_to_end.processes import Process, run_python, until

MODEL = """\
import batcher


@batcher.model(inputs={"x": "FP32[2]"})
class Double:
    def predict(self, inputs):
        return {"y": inputs["x"] * 2}


"""
SCRIPT = (
    MODEL
    + """\
if __name__ == "__main__":
    batcher.serve(Double, port=0, max_batch_size=4)
    print("the script goes on")
"""
)
NOTEBOOK = (
    MODEL
    + """\
import asyncio
import json
from pathlib import Path
from urllib.request import Request, urlopen

import torch


def ask(server, body):
    head = {"Content-Type": "application/json"}
    request = Request(f"{server.address}/predict", json.dumps(body).encode(), head)
    with urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["outputs"]


def refusal(*arguments, **options):
    try:
        batcher.serve(*arguments, **options)
    except batcher.errors.BatcherError as err:
        return str(err)


async def cells():
    first = batcher.serve(Double, port=0)
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(turn())
    print(await asyncio.to_thread(ask, first, {"inputs": {"x": [[1, 2]]}}), turns > 0)
    other.cancel()
    print(refusal(Double, port=0, max_batch=3))
    print(refusal(type("Silent", (), {"predict": lambda self, inputs: inputs}), port=0))
    print(refusal(Double, port=0, worker="process"))
    print(refusal(5))
    function = batcher.serve(lambda x: x + 1, port=0, inputs={"x": "FP32[1]"}, name="plus")
    print(await asyncio.to_thread(ask, function, {"inputs": {"x": [[7]]}}))
    print(first.address in repr(first))
    layer = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(layer.weight)
    again = batcher.serve(layer, port=0, sample=torch.ones(1, 2), name="layer")
    print(first, await asyncio.to_thread(ask, again, {"inputs": {"input": [[1, 2]]}}))
    Path("net.py").write_text(SOURCE)
    file = batcher.serve("net.py", port=0)
    print(await asyncio.to_thread(ask, file, {"inputs": {"x": [[3, 4]]}}))
    file.stop()
    print(file)


SOURCE = MODEL_SOURCE
asyncio.run(cells())
"""
).replace("MODEL_SOURCE", repr(MODEL))


INTERRUPTED = """\
import os
import signal
import socket
from pathlib import Path

import batcher

MODEL = '''
import os
import signal

import batcher


@batcher.model(inputs={"x": "FP32[2]"}, outputs={"y": "FP32[2]"})
class Slow:
    def load(self, device):
        os.kill(os.getpid(), signal.SIGINT)  # somebody presses Ctrl-C

    def predict(self, inputs):
        return {"y": inputs["x"]}
'''
exec(MODEL)
Path("slow.py").write_text(MODEL)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
for model in (Slow, "slow.py"):
    try:
        batcher.serve(model, port=port, wait=False)
    except KeyboardInterrupt:
        print("interrupted")
Slow.load = lambda self, device: None
again = batcher.serve(Slow, port=port, wait=False)
print(again)
again.stop()
"""


FORKED = """\
import os

server = batcher.serve(Double, port=0, wait=False)
copy = os.fork()
if copy == 0:
    server.stop()
    os._exit(0)
print("the copy ended with", os.waitpid(copy, 0)[1])
print(server)
"""


def test_an_interrupted_start_leaves_the_port_free_for_the_next(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(INTERRUPTED)
    done = run_python("program.py", working=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("interrupted\ninterrupted\n")
    assert done.stdout.splitlines()[-1].startswith("<batcher on http://127.0.0.1:")


def test_a_script_is_held_up_until_a_signal_has_ended_the_server(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    server = Process([str(script)], tmp_path, {})
    try:
        until(lambda: "Ctrl-C stops the server" in "\n".join(server.lines), 60)
        (line,) = [line for line in server.lines if "curl" in line]
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert done.stdout == '{"outputs":{"y":[[0.0,0.0]]}}'
        server.signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert server.lines[-1] == "the script goes on"
    finally:
        server.end()


def test_a_notebook_goes_on_and_its_cells_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    done = run_python("notebook.py", working=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert "{'y': [[2.0, 4.0]]} True\n" in printed
    assert "unknown argument max_batch; did you mean max_batch_size?" in printed
    assert "Silent: expected names, dtypes and shapes of the inputs; got none" in printed
    assert "expected worker=thread" in printed
    assert "a torch.nn.Module, an object with predict, or a path; got int\n" in printed
    assert "{'output': [[8.0]]}" in printed
    assert "<batcher, stopped> {'output': [[3.0]]}" in printed
    assert "{'y': [[6.0, 8.0]]}\n<batcher, stopped>" in printed


def test_a_file_that_serves_itself_says_where_that_belongs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"{MODEL}batcher.serve(Double)\n")
    done = run_python("-m", "batcher.app.cli", "serve", "net.py", "--port", "0", working=tmp_path)
    assert done.returncode == 1
    assert 'write it below `if __name__ == "__main__":`' in done.stderr


def test_a_server_ends_with_its_program_and_a_fork_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"{MODEL}{FORKED}")
    done = run_python("program.py", working=tmp_path)
    assert done.returncode == 0, done.stderr
    status, shown = done.stdout.splitlines()[-2:]
    assert status == "the copy ended with 0"
    assert shown.startswith("<batcher on http://127.0.0.1:")
    assert "stopped after" in done.stderr
