"""The model of a job behind a server that runs: `batcher run --url`.

Requests go by our own client, in the server's bulk class, which other clients hardly notice. The
server's description of the model says names, datatypes, shapes, and how many rows a batch has.

What a request fails with decides what follows, as in `serving/jobs/answering.py`:

    answer                   counts as
    400, 413, 500            a fault of the rows
    429, 503, 504, no server something that passes
    any other                the end of the job
"""

from __future__ import annotations

from collections.abc import Mapping
from json import loads
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from batcher.client.deferred import TwistedClient
from batcher.client.errors import AnswerLost, DeadlineExceeded, InferenceFailed, NotConnected
from batcher.client.response_reading import InferResult
from batcher.core.request import InferenceResponse
from batcher.core.spec import DATATYPES, Array, ModelSpec, TensorSpec
from batcher.errors import (
    ConfigError,
    InvalidInput,
    ModelError,
    TooLarge,
    Unavailable,
    WorkerLost,
)
from batcher.serving.jobs.job import Shape

MOST_PORTIONS = 8
"""Batches under way: the server has the next ones while answers travel."""

PARTS_OF_BATCH = 4
"""Requests of a batch: in the bulk class a request finds room only where all of it has room."""

PATIENCE_S = 600.0
"""Seconds that a server may be away or full: it may be started again meanwhile."""

ANSWER_S = 600.0
"""Seconds for one request: work that can wait may wait for a busy server."""

DESCRIPTION_S = 60.0
"""Seconds for the server to describe the model."""

_OF_THE_ROWS = {400: InvalidInput, 413: TooLarge, 500: ModelError}
_PASSING = (429, 503, 504)


class RemoteModel(NamedTuple):
    """A model of a server.

    Attributes:
        url: of the server.
        spec: what the server says of the model.
        batch: rows of a full batch.
        priority: that of the bulk class.
        api_key: what the server knows this client by.
    """

    url: str
    spec: ModelSpec
    batch: int
    priority: int
    api_key: str

    @property
    def title(self) -> str:
        """The model, for messages."""
        return f"{self.spec.name}/{self.spec.version} at {self.url}"

    @property
    def shape(self) -> Shape:
        """How much of a job is under way."""
        return Shape(self.batch, MOST_PORTIONS, max(self.batch // PARTS_OF_BATCH, 1))

    def identity(self) -> dict[str, Any]:
        """Return what changes whenever the answers may, as far as a client can know."""
        return {"model": self.title, "largest batch": self.batch}


def find_remote(url: str, name: str, api_key: str) -> RemoteModel:
    """Return the model `name` of the server at `url`. Raises ConfigError: it does not answer."""
    url = url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url: expected an address as http://localhost:8080; got {url}")
    if "/" in name and Path(name).exists():
        raise ConfigError(f"MODEL: expected, with --url, the name of a model there; got {name}")
    try:
        return _found(url, name, api_key)
    except (KeyError, IndexError, TypeError, ValueError) as err:
        raise ConfigError(f"{url}: expected a server of this kind: no {err} of the model") from err


def _found(url: str, name: str, api_key: str) -> RemoteModel:
    place = f"{url}/v2/models/{quote(name, safe='')}"
    versions = _described(place, api_key)["versions"]
    place += f"/versions/{versions[-1]}"
    described, config = _described(place, api_key), _described(f"{place}/config", api_key)
    optional = {each["name"] for each in config["input"] if each.get("optional")}
    inputs = [_tensor(each, each["name"] in optional) for each in described["inputs"]]
    outputs = [_tensor(each) for each in described["outputs"]]
    spec = ModelSpec(name, versions[-1], tuple(inputs), tuple(outputs))
    levels = config["dynamic_batching"]["priority_levels"]
    return RemoteModel(url, spec, config["max_batch_size"], levels, api_key)


def _tensor(described: Mapping[str, Any], is_optional: bool = False) -> TensorSpec:
    shape = tuple(map(int, described["shape"][1:]))
    datatype = DATATYPES[described["datatype"]]
    return TensorSpec(described["name"], datatype, shape, is_optional=is_optional)


def _described(url: str, api_key: str) -> Any:
    asked = Request(url)
    if api_key:  # for this host alone, wherever it may send us
        asked.add_unredirected_header("X-api-key", api_key)
    try:
        with urlopen(asked, timeout=DESCRIPTION_S) as answer:
            return loads(answer.read())
    except HTTPError as err:
        text = err.read()[:500].decode("utf-8", "replace")
        raise ConfigError(
            f"{url}: expected the description of a model; got {err.code}: {text}"
        ) from err
    except (OSError, URLError, ValueError) as err:
        raise ConfigError(f"cannot reach {url}: {err}: is the server running there?") from err


class RemoteServer:
    """Asks the server. Reactor thread."""

    patience = PATIENCE_S

    def __init__(self, model: RemoteModel, reactor: AsyncioSelectorReactor) -> None:
        """Connect to nothing yet. Raises ConfigError: no client can have that address or key."""
        self._model = model
        try:
            self._client = TwistedClient(
                reactor, model.url, timeout=ANSWER_S, retries=0, api_key=model.api_key
            )
        except ValueError as err:
            raise ConfigError(str(err)) from err

    def load(self) -> Deferred[None]:
        """Load nothing: the server has the model."""
        return succeed(None)

    def infer(self, inputs: Mapping[str, Array]) -> Deferred[InferenceResponse]:
        """Answer one request."""
        spec, priority = self._model.spec, self._model.priority
        asked = self._client.infer(spec.name, inputs, version=spec.version, priority=priority)
        return asked.addCallbacks(_response, _translate)

    def stop(self) -> Deferred[None]:
        """Close the connections."""
        return self._client.close()


def _response(result: InferResult) -> InferenceResponse:
    rows = len(next(iter(result.outputs.values())))
    return InferenceResponse(result.model, result.version, result.outputs, 0.0, 0.0, rows)


def _translate(failure: Failure) -> NoReturn:
    """Raise what a failure of the client means for a job."""
    error = failure.value
    if isinstance(error, InferenceFailed):
        kind = _OF_THE_ROWS.get(error.status)
        if kind is not None:
            raise kind(error.message) from error
        if error.status in _PASSING:
            raise Unavailable(error.message) from error
        raise ConfigError(f"the server refuses the job: {error}") from error
    if isinstance(error, NotConnected | DeadlineExceeded):
        raise Unavailable(str(error)) from error
    if isinstance(error, AnswerLost):
        raise WorkerLost(str(error)) from error
    failure.raiseException()
