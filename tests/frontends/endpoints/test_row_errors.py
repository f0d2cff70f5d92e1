"""A row that fails by itself, over every front: only its own request gets the error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from batcher.batching.worker import Condition
from batcher.core.error_text import MAX_MESSAGE_CHARS
from batcher.core.spec import Array
from batcher.errors import InvalidInput
from batcher.frontends.grpc.calls import status_of
from batcher.models.protocol import PartialOutputs
from tests.frontends.endpoints.conftest import MORE, Both
from tests.frontends.endpoints.oip.test_infer import INFER
from tests.frontends.endpoints.test_failures import error_of
from tests.frontends.grpc.conftest import Context, Rpc, run
from tests.frontends.grpc.conftest import request as message
from tests.support.http import MemoryServer, ask
from tests.support.models import RecordingModel, rows

WRONG = -1.0
REFUSED = -2.0
CODES = {400: "invalid_input", 500: "model_error"}


class Picky(RecordingModel):
    """Doubles; negative rows fail by themselves, -2 as the client's fault."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = super().predict(inputs)
        first = inputs["x"].reshape(len(inputs["x"]), -1)[:, 0]
        failed: dict[int, BaseException] = {
            row: ZeroDivisionError("secret") for row in np.flatnonzero(first == WRONG).tolist()
        }
        failed |= {
            row: InvalidInput("too dark") for row in np.flatnonzero(first == REFUSED).tolist()
        }
        return PartialOutputs(outputs, failed) if failed else outputs


def server_of(model: RecordingModel | None = None, **settings: Any) -> MemoryServer:
    return MemoryServer(model or Picky(), **settings)


def ask_all(
    server: MemoryServer, *requests: tuple[float, ...], wrap: Callable[[Array], bytes] | None = None
) -> list[Any]:
    """Send a request of a row for each value in each of `requests`, all at once.

    Return the answers.
    """
    clients = []
    for values in requests:
        clients.append(server.connect("loop"))
        clients[-1].send(wrap(rows(*values)) if wrap else ask("/predict", rows(*values).tobytes()))
    server.work()
    return [client.answers[0] for client in clients]


def oip(values: Array) -> bytes:
    entry = {
        "name": "x",
        "datatype": "FP32",
        "shape": values.shape,
        "data": values.ravel().tolist(),
    }
    return ask(INFER, json.dumps({"inputs": [entry]}).encode(), content_type="application/json")


def doubled(answer: Any) -> list[float]:
    """Return the first element of each row of an answer of raw bytes."""
    assert answer.status == 200, answer
    return np.frombuffer(answer.body, "<f4").reshape(-1, 4)[:, 0].tolist()


def test_only_the_request_of_the_row_fails() -> None:
    server = server_of()
    answers = ask_all(server, (1,), (WRONG,), (2, 3), (4, WRONG, 5), (6,))
    assert server.model.sizes() == [8], "they share a batch, which is run once"
    assert [doubled(answers[number]) for number in (0, 2, 4)] == [[2], [4, 6], [12]]
    for number in (1, 3):
        assert "secret" not in error_of(answers[number], 500, "model_error")
    metrics = server.server.metrics.model("m", "1")
    assert (metrics.failed_rows, metrics.failed_batches) == (2, 0)
    assert (metrics.statistics.success.count, metrics.statistics.fail.count) == (3, 2)
    text = server.server.metrics.render().decode()
    assert 'batcher_failed_rows_total{model="m",version="1"} 2.0' in text


def test_the_answer_does_not_depend_on_the_stack(both: Both) -> None:
    answer = both(server_of(), ask("/predict", rows(1, WRONG).tobytes()))
    assert "secret" not in error_of(answer, 500, "model_error")


def test_the_reason_is_told_where_the_operator_wants_it(both: Both) -> None:
    answer = both(server_of(expose_model_errors=True), ask("/predict", rows(WRONG).tobytes()))
    assert "ZeroDivisionError: secret" in error_of(answer, 500, "model_error")


def test_a_row_that_the_model_refuses_is_the_client_s_fault(both: Both) -> None:
    server = server_of()
    assert (
        error_of(both(server, ask("/predict", rows(REFUSED).tobytes())), 400, "invalid_input")
        == "too dark"
    )
    good, bad = ask_all(server, (1,), (REFUSED,))
    assert doubled(good) == [2]
    assert bad.status == 400


def test_the_first_row_of_a_request_that_failed_is_told_of() -> None:
    first, second = ask_all(server_of(), (1, REFUSED, WRONG), (WRONG, REFUSED))
    assert (first.status, second.status) == (400, 500)


def test_a_request_that_is_cut_fails_if_any_row_of_it_does() -> None:
    server = server_of(defaults={"max_batch_size": 2})
    cut, whole, good = ask_all(server, (1, 2, 3, 4, WRONG), (1, 2, 3), (5,))
    assert cut.status == 500
    assert [doubled(whole), doubled(good)] == [[2, 4, 6], [10]]


def test_isolation_does_not_run_again_what_failed_by_itself() -> None:
    server = server_of(defaults={"isolate": True})
    ask_all(server, (1,), (WRONG,), (2,))
    assert len(server.model.batches) == 1


def test_numbers_that_are_none_fail_their_request_where_that_is_asked_for() -> None:
    def root(inputs: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(invalid="ignore"):
            return {"y": np.sqrt(inputs["x"])}

    model = RecordingModel(predict=root)
    server = server_of(model, defaults={"finite_outputs": True})
    server.workers[
        "m/1"
    ]._model._finite_outputs = True  # the worker in memory is made without the settings
    good, bad = ask_all(server, (4,), (-4,))
    assert doubled(good) == [2]
    assert "expected finite numbers in output 'y'" in error_of(bad, 500, "model_contract")


def test_a_row_that_failed_does_not_reach_postprocess() -> None:
    seen: list[float] = []

    def postprocess(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        seen.extend(outputs["y"][:, 0].tolist())
        return {"y": outputs["y"] + 1}

    model = Picky()
    model.postprocess = postprocess
    good, bad, more = ask_all(server_of(model), (1,), (WRONG,), (2,))
    assert [doubled(good), doubled(more)] == [[3], [5]]
    error_of(bad, 500, "model_error")
    assert seen == [2, 4]


@pytest.mark.parametrize(
    ("value", "status", "text"),
    [(WRONG, 500, f"the model failed on this request{MORE}"), (REFUSED, 400, "too dark")],
)
def test_over_the_open_inference_protocol_too(value: float, status: int, text: str) -> None:
    good, bad = ask_all(server_of(), (1,), (value,), wrap=oip)
    assert json.loads(good.body)["outputs"][0]["data"] == [2, 2, 2, 2]
    assert (bad.status, json.loads(bad.body)) == (status, {"error": text})


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (WRONG, grpc.StatusCode.INTERNAL, f"the model failed on this request{MORE}"),
        (REFUSED, grpc.StatusCode.INVALID_ARGUMENT, "too dark"),
    ],
)
def test_over_grpc_too(value: float, code: grpc.StatusCode, text: str) -> None:
    rpc = Rpc(server_of())

    async def test() -> None:
        tasks = [
            asyncio.ensure_future(rpc.inference.infer(message(each), Context()))
            for each in (1.0, value, 2.0)
        ]
        await rpc.settle()
        error = tasks[1].exception()
        assert error is not None
        assert status_of(error, rpc.calls.disclosure) == (code, text)
        for task, expected in ((tasks[0], 2), (tasks[2], 4)):
            assert np.frombuffer(task.result().raw_output_contents[0], "<f4")[0] == expected

    run(test)
    assert rpc.server.model.sizes() == [3]


@pytest.mark.parametrize("begun", [False, True])
def test_a_worker_that_is_lost_is_503_and_to_be_tried_again_only_if_nothing_ran(
    begun: bool,
) -> None:
    server = server_of(defaults={"max_batch_size": 1})
    clients = [server.connect("loop") for _ in range(2)]
    for client in clients:
        client.send(ask("/predict", rows(1).tobytes()))
    server.turn()
    server.workers["m/1"].lose(Condition.DEAD, "the worker hangs")
    server.work()
    answer = clients[0 if begun else 1].answers[0]
    error_of(answer, 503, "worker_lost")
    assert answer.header("retry-after") == (None if begun else "1")


def test_the_stack_of_a_row_s_error_does_not_keep_its_batch_alive() -> None:
    raised: list[BaseException] = []

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        with pytest.raises(ValueError, match="bad") as caught:
            raise ValueError("bad") from KeyError()
        raised.append(caught.value)
        return PartialOutputs({"y": inputs["x"]}, {0: caught.value})

    model = Picky()
    model.predict = predict  # type: ignore[method-assign,assignment]  # of this model
    (answer,) = ask_all(server_of(model), (1,))
    assert answer.status == 500
    assert raised[0].__traceback__ is None


def raising(kind: type[BaseException], said: Callable[[object], str]) -> RecordingModel:
    """Return a model that raises an exception of a class below `kind`; `said` is its `__str__`."""
    error = type("Own", (kind,), {"__str__": said})()

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise error

    return RecordingModel(predict=predict)


@pytest.mark.parametrize(("kind", "status"), [(ValueError, 500), (InvalidInput, 400)])
def test_of_a_long_message_a_client_is_told_beginning_and_end(
    both: Both, kind: type[BaseException], status: int
) -> None:
    server = server_of(
        raising(kind, lambda _: f"first {'long' * 1_000_000} last"), expose_model_errors=True
    )
    text = error_of(both(server, ask("/predict", rows(1).tobytes())), status, CODES[status])
    assert len(text) <= MAX_MESSAGE_CHARS
    assert "first long" in text
    assert text.endswith("long last")


@pytest.mark.parametrize(("kind", "status"), [(ValueError, 500), (InvalidInput, 400)])
def test_an_exception_that_gives_up_when_it_is_asked_is_told_all_the_same(
    both: Both, kind: type[BaseException], status: int
) -> None:
    def give_up(_: object) -> str:
        raise SystemExit(3)

    answer = both(
        server_of(raising(kind, give_up), expose_model_errors=True),
        ask("/predict", rows(1).tobytes()),
    )
    assert answer.status == status
    assert answer.decoded()["error"].endswith("<exception str() failed>")
