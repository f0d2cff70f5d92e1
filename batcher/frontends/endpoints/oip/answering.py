"""What HTTP and gRPC share when they answer an inference request of the Open Inference Protocol.

Both carry the same head (JSON, or the fields of a message) and the same tensors. This module turns
a head into the parameters of a request, and says which work is too slow for the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred

from batcher.codecs.oip.members import BULK_PRIORITY
from batcher.codecs.oip.request import InferHead
from batcher.core.element_sizes import about_written_nbytes
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.core.spec import ModelSpec
from batcher.errors import Unavailable
from batcher.frontends.endpoints.stage_wishes import NO_WISHES, StageWishes
from batcher.serving.servable import Servable

Result = TypeVar("Result")

MAX_KEPT_HEADS = 16
MAX_KEPT_HEAD_BYTES = 1024
"""How many parsed heads gRPC keeps for a model, and the bytes up to which a head is kept.

Clients send the same head again and again. A head with tensors in its JSON, or with an id, hardly
ever comes twice and is not kept.
"""


def has_slow_inputs(spec: ModelSpec) -> bool:
    """Return whether some inputs of the model `spec` are BYTES, which are decoded one by one."""
    return any(tensor.datatype.name == "BYTES" for tensor in spec.inputs)


def parameters_of(
    servable: Servable,
    head: InferHead,
    wishes: StageWishes = NO_WISHES,
    timed: bool = False,
    client: str = "",
) -> Parameters:
    """Return the parameters of a request that comes now.

    Args:
        servable: answers the request.
        head: the request without its tensors.
        wishes: what stages read; where its route is empty, that is the id of `head`.
        timed: whether work on the CPU pool needs a deadline also where `head` has none.
        client: whose share of the CPU pool it uses; empty where it uses none.
    """
    if servable.picks_version and head.id and not wishes.route:
        wishes = wishes._replace(route=head.id)
    named = client or any(wishes) or head.priority or head.timeout is not None
    if not (timed or named or head.slow):
        return NO_PARAMETERS  # most requests share one object, which no stage has to check again
    level = _level(head.priority, servable.max_level)
    return wishes.parameters(servable.deadline(head.timeout), level, client)


def _level(priority: int, bulk: int) -> int:
    """Return the level of `priority`, where `bulk` is the level of the bulk class."""
    level = bulk if priority == BULK_PRIORITY else priority
    # Other servers of the protocol take an unknown level for the default, too.
    return level if level <= bulk else 0


def write_slow(
    response: InferenceResponse,
    servable: Servable,
    write: Callable[[InferenceResponse], Result],
    parameters: Parameters,
) -> Deferred[Result]:
    """Fire with the result of `write(response)`, which runs on the CPU pool. Reactor thread.

    Args:
        response: the answer to write.
        servable: has the pool.
        write: encodes the answer.
        parameters: of the request; the pool gives up at their deadline, and charges their client.

    Raises:
        QueueFull: the pool has too many tasks or bytes already.
    """
    nbytes = about_written_nbytes(response.outputs)  # the outputs exist already
    try:
        return servable.run_on_pool(nbytes, partial(write, response), parameters)
    except Unavailable as err:
        err.retry_after = 0  # the model has run: a client must not be told to send it again
        raise
