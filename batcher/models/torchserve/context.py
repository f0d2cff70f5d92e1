"""The object that handlers of TorchServe get, with the names that TorchServe's documentation gives.

One object stands for one loaded model. What is of a batch (request ids, headers, statuses) is set
before each call of the handler; calls are made one after the other, on the inference thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple


class RequestProcessor:
    """The headers of one request, and what the handler says of its answer."""

    def __init__(self, request_header: Mapping[str, str]) -> None:
        """Hold the headers of a request."""
        self._headers = dict(request_header)
        self._status = 200
        self._phrase = ""
        self._answer: dict[str, str] = {}

    def get_request_property(self, key: str) -> str | None:
        """Return a header of the request."""
        return self._headers.get(key)

    def get_request_properties(self) -> dict[str, str]:
        """Return all headers of the request."""
        return self._headers

    def report_status(self, code: int, reason_phrase: str = "") -> None:
        """Set the status of the answer."""
        self._status, self._phrase = code, reason_phrase

    def get_response_status_code(self) -> int:
        """Return the status of the answer."""
        return self._status

    def get_response_status_phrase(self) -> str:
        """Return the text that goes with the status."""
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._answer[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        return self._answer

    def get_response_header(self) -> dict[str, str]:
        """Return the headers of the answer, by the older name."""
        return self._answer


class Dimension(NamedTuple):
    """A label of a metric that a handler counts."""

    name: str
    value: Any


class MetricTypes(Enum):
    """Kinds of metrics that a handler counts."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class _NoMetrics:
    """Takes whatever a handler counts: metrics of a handler's own are not served."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: self


_OF_SERVER = {"server_name": "MMS", "server_version": "0.12.0", "limit_max_image_pixels": True}
"""What handlers ask of the server: the name and the last version of TorchServe."""


class Context:
    """What a handler knows of its model and of the requests of a batch.

    Attributes:
        model_name: name of the model.
        manifest: the archive's manifest.
        system_properties: `model_dir`, `gpu_id`, `batch_size` and others.
        model_yaml_config: the archive's configuration file; empty without one.
        metrics: takes what a handler counts, and forgets it.
        request_ids: a text for each request of the batch, by its place.
        request_processor: headers and status of each request of the batch.
        import_module: imports a module of the archive.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any],
        batch_size: int,
        gpu: int | None,
        import_module: Callable[[str], ModuleType],
        model_yaml_config: dict[str, Any],
    ) -> None:
        """Say what a handler asks of its model."""
        self.model_name = model_name
        self.manifest = manifest
        self.import_module = import_module
        self.model_yaml_config = model_yaml_config
        self.metrics = _NoMetrics()
        self.request_ids: dict[int, str] = {}
        self.request_processor: list[RequestProcessor] = []
        of_model = {"model_dir": model_dir, "gpu_id": gpu, "batch_size": batch_size}
        self.system_properties: dict[str, Any] = {**of_model, **_OF_SERVER}

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the id of a request of the batch."""
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a header of a request of the batch."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """Return all headers of a request of the batch."""
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the media type of an answer."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return the media type of an answer."""
        return self.get_response_headers(idx).get("content-type")

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return the headers of an answer."""
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of an answer; of these the server sends the media type alone."""
        self.request_processor[idx].add_response_property(key, value)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the status of an answer; one from 400 on fails the request."""
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of all answers of the batch."""
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        """Return status and phrase of an answer."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()
