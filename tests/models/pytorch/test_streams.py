"""Streams of a GPU: who has which, who shares one, and which one comes next."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from batcher.errors import ModelLoadError
from batcher.models.pytorch import gpu
from batcher.models.pytorch.gpu import Cuda
from batcher.models.pytorch.streams import POOL, Streams

DEVICE = torch.device("cuda:0")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Streams of a device that hands them out in a circle, as PyTorch does."""
    circle = cycle(range(1, POOL + 1))
    streams = Streams(lambda: SimpleNamespace(cuda_stream=next(circle)))
    monkeypatch.setattr(gpu, "streams_of", lambda device: streams)
    return streams


def taken(model: Cuda) -> Any:
    """Return the name of the next stream that `model` takes."""
    return model.stream().cuda_stream


def test_each_load_takes_the_stream_that_the_last_model_has_left(streams: Streams) -> None:
    found = set()
    for _ in range(3 * POOL):
        model = Cuda(DEVICE)
        found.add(taken(model))
        del model
    assert found == {1}
    assert streams.free() == {1}


def test_no_model_gets_a_stream_of_one_that_lives(streams: Streams) -> None:
    first = Cuda(DEVICE)
    assert [taken(first) for _ in range(3)] == [1, 2, 3]
    others = [Cuda(DEVICE) for _ in range(POOL - 3)]
    assert [taken(each) for each in others] == list(range(4, POOL + 1))
    assert streams.free() == set()
    del others[5]
    assert taken(Cuda(DEVICE)) == 9


def test_models_that_share_a_stream_have_no_graphs_until_it_is_one_model_s_again(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: 1 / 0)
    models = [Cuda(DEVICE) for _ in range(POOL + 1)]
    held = [model.stream() for model in models]
    assert held[-1].cuda_stream == held[0].cuda_stream
    for index in (0, -1):
        with pytest.raises(ModelLoadError, match="expected a stream for this model alone"):
            models[index].capture(held[index], lambda: None)
    del models[0]
    gc.collect()  # errors hold on to it
    with pytest.raises(ZeroDivisionError):  # it captures
        models[-1].capture(held[-1], lambda: None)


def test_after_a_failed_capture_an_empty_one_lets_pytorch_know_that_it_is_over(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    @contextmanager
    def capture(graph: str, *others: Any, **named: Any) -> Iterator[None]:
        events.append(f"begin {graph}")
        yield
        events.append(f"end {graph}")

    graphs = iter(("failing", "empty"))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: next(graphs))
    monkeypatch.setattr(torch.cuda, "graph", capture)
    model = Cuda(DEVICE)

    def run() -> None:
        raise ValueError("it waits for the device")

    with pytest.raises(ValueError, match="it waits"):
        model.capture(model.stream(), run)
    assert events == ["begin failing", "begin empty", "end empty"]
