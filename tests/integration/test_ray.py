"""Workers on a real Ray: a cluster of two nodes on this machine, each with room for one actor."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batcher.client import Client, InferenceFailed
from tests.end_to_end.processes import Process, started, until, write_model
from tests.support.blocks import ROOT, blocks_of

pytest.importorskip("ray", reason="needs Ray: `make lint` installs it")

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
START_LIMIT_S = 120.0

MODEL = """
import os
import time


class Model:
    def preprocess(self, inputs):
        return {"x": inputs["x"] + 1}

    def predict(self, inputs):
        y = inputs["x"]
        y *= 2
        y[:, 3] = os.getpid()
        time.sleep(0.02)
        return {"y": y}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Yield a cluster with a head that has room for one actor."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def serving(folder: Path, cluster: Any, *pairs: str, example: int = 0) -> Iterator[Process]:
    """Run a server with the settings that an example of docs/ray.md shows, on `cluster`."""
    page = ROOT / "docs" / "ray.md"
    shown_settings = [block.text for block in blocks_of(page) if block.language == "yaml"]
    (folder / "config.yaml").write_text(shown_settings[example])
    if not (folder / "models").exists():
        write_model(folder / "models", "slow", MODEL)
    shown = ("--config", str(folder / "config.yaml"), "--set", "defaults.max_batch_size=2")
    with started(
        folder,
        *shown,
        *(part for pair in pairs for part in ("--set", pair)),
        environment={"RAY_ADDRESS": cluster.address},
        ready=False,
    ) as server:
        server.wait_ready(START_LIMIT_S)
        yield server


def answer(client: Client, number: int) -> int:
    """Ask for one row, and return which process computed it.

    0 stands for a worker that was lost, -1 for another error.
    """
    try:
        y = client.infer("slow", {"x": np.full((1, 4), number, np.float32)}).outputs["y"]
    except InferenceFailed as err:
        return 0 if err.status == 503 and "lost" in err.message else -1
    np.testing.assert_array_equal(y[0, :3], 2.0 * (number + 1))
    return int(y[0, 3])


def answers(server: Process, count: int) -> Counter[int]:
    """Ask for `count` rows, 16 at a time; return how many rows each process computed."""
    with Client(server.address, retries=0) as client, ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(lambda number: answer(client, number), range(count)))


def has_ended(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


def test_instances_come_with_the_load_and_leave_after_it(tmp_path: Path, cluster: Any) -> None:
    cool_down = "defaults.autoscale.cool_down_s=4"
    with serving(tmp_path, cluster, cool_down, example=1) as server:
        wanted = partial(server.metric, "batcher_instances_wanted")
        ready = partial(server.metric, "batcher_instances_ready")
        counted: Counter[int] = Counter()

        def load_until(true: Callable[[], bool]) -> None:
            counted.clear()

            def loaded() -> bool:
                counted.update(answers(server, 256))
                return true()

            until(loaded, START_LIMIT_S)

        load_until(lambda: wanted() > 1)
        assert ready() == 1, "the cluster has no room for a second one"
        assert len(counted) == 1
        node = cluster.add_node(**NODE)
        load_until(lambda: ready() > 1)
        load_until(lambda: len(counted) > 1)
        both = set(counted)
        assert not {0, -1} & both
        until(lambda: wanted() == 1 and ready() == 1, START_LIMIT_S)
        until(lambda: any(map(has_ended, both)), START_LIMIT_S)
        assert set(answers(server, 16)) < both
        cluster.remove_node(node)


def test_instances_on_several_nodes_share_a_queue_and_outlive_each_other(
    tmp_path: Path, cluster: Any
) -> None:
    with ExitStack() as stack:
        node = cluster.add_node(**NODE)
        server = stack.enter_context(serving(tmp_path, cluster))
        first = answers(server, 64)
        assert len(first) == 2
        assert not {0, server.pid} & set(first)
        with ThreadPoolExecutor(1) as pool:
            under_load = pool.submit(answers, server, 200)
            os.kill(min(first), signal.SIGKILL)
            during = under_load.result()
        assert during.total() == 200
        assert during[0] <= 4  # the batches that the actor had been sent
        until(lambda: len(answers(server, 32)) == 2, START_LIMIT_S)

        cluster.remove_node(node)
        until(lambda: len(set(answers(server, 32)) - {0}) == 1, START_LIMIT_S)
        assert answers(server, 32)[0] == 0
        cluster.add_node(**NODE)
        until(lambda: len(answers(server, 32)) == 2, START_LIMIT_S)

        last = answers(server, 32)
        server.signal(signal.SIGKILL)
        server.wait(20)
        until(lambda: all(map(has_ended, last)), START_LIMIT_S)


def refusal(server: Process) -> InferenceFailed | None:
    """Return how a request is refused, None if it is answered."""
    with Client(server.address, retries=0) as client:
        try:
            client.infer("slow", {"x": np.zeros((1, 4), np.float32)})
        except InferenceFailed as err:
            return err
    return None


def test_a_server_goes_on_with_the_head_that_comes_after_its_own(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    with ExitStack() as stack:
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        stack.callback(cluster.shutdown)
        port = int(cluster.address.rpartition(":")[2])
        server = stack.enter_context(serving(tmp_path, cluster, "defaults.instances=1"))
        with ThreadPoolExecutor(1) as pool:
            under_load = pool.submit(answers, server, 400)
            until(lambda: server.metric("batcher_batch_flush_total") > 0, START_LIMIT_S)
            cluster.remove_node(cluster.head_node, allow_graceful=False)
            during = under_load.result(START_LIMIT_S)
        assert during.total() == 400, "each has one answer or one error"
        assert during.keys() & {0, -1}

        def is_refused() -> bool:
            refused = refusal(server)
            return refused is not None and "is not ready: broken" in refused.message

        until(is_refused, START_LIMIT_S)
        refused = refusal(server)
        assert refused is not None
        assert refused.status == 503
        assert refused.retry_after
        assert "ray.address: expected a cluster of Ray" in server.errors

        cluster.add_node(gcs_server_port=port, **NODE)
        until(lambda: refusal(server) is None, START_LIMIT_S)
        assert {0, -1}.isdisjoint(answers(server, 64))
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert "SIGTERM" not in server.errors


ENDS_RAY = """
import ray


class Model:
    def predict(self, inputs):
        if inputs["x"].any():  # no warm-up
            ray.shutdown()
        return {"y": inputs["x"]}
"""


def test_a_server_connects_again_when_another_model_has_ended_its_connection(
    tmp_path: Path, cluster: Any
) -> None:
    write_model(tmp_path / "models", "slow", MODEL)
    write_model(tmp_path / "models", "ends", ENDS_RAY)
    pairs = ("defaults.instances=1", "models.ends.worker=thread")
    with serving(tmp_path, cluster, *pairs) as server, ThreadPoolExecutor(1) as pool:
        before = set(answers(server, 16))
        under_load = pool.submit(answers, server, 400)
        until(lambda: server.metric("batcher_queue_rows") > 0)
        with Client(server.address) as client:
            client.infer("ends", {"x": np.ones((1, 4), np.float32)})
        during = under_load.result(START_LIMIT_S)
        assert during.total() == 400, "each has one answer or one error"
        until(lambda: refusal(server) is None, START_LIMIT_S)
        after = set(answers(server, 64))
        assert not {0, -1, *before} & after
        until(lambda: all(map(has_ended, before)), START_LIMIT_S)
        assert "the actor was lost" in server.errors
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_a_server_without_its_cluster_says_so(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "slow", MODEL)
    settings = ("defaults.worker=ray", f"model_repository={tmp_path / 'models'}")
    pairs = [part for pair in settings for part in ("--set", pair)]
    with started(
        tmp_path, *pairs, environment={"RAY_ADDRESS": "127.0.0.1:9"}, ready=False
    ) as server:
        assert server.wait(START_LIMIT_S) == 1
        assert re.search(r"ray\.address: expected a cluster of Ray", server.errors)
