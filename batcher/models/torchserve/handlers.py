"""The default handlers of TorchServe: what they take and give follows its documentation.

    handler             takes                               gives, for each request
    base_handler        a list of numbers, a row            the row that the model gives
    image_classifier    a picture, or a tensor as lists     the five best classes with probabilities
    image_segmenter     the same                            class and probability of each pixel
    object_detector     the same                            boxes, classes and scores from 0.5 on

A request's data is a mapping with `data` or `body`. Handlers of archives derive from these classes,
so the names of their methods and attributes are TorchServe's. A batch is one call of each method.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import Any

import torch

from batcher.models.torchserve import labels, transforms


class BaseHandler:
    """Loads TorchScript, or a module of the archive with its weights, and runs it on batches."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: torch.device | None = None
        self.initialized = False
        self.context: Any = None
        self.manifest: Any = None
        self.model_pt_path: str | None = None
        self.map_location: str | None = None
        self.model_yaml_config: dict[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Load the model that the manifest names. Raises RuntimeError: it names none."""
        self.context, self.manifest = context, context.manifest
        self.model_yaml_config = context.model_yaml_config
        properties = context.system_properties
        gpu = properties.get("gpu_id")
        self.map_location = "cuda" if gpu is not None and torch.cuda.is_available() else "cpu"
        self.device = torch.device(f"cuda:{gpu}" if self.map_location == "cuda" else "cpu")
        folder, model = properties["model_dir"], self.manifest["model"]
        if model.get("serializedFile"):
            self.model_pt_path = os.path.join(folder, model["serializedFile"])
        if model.get("modelFile"):
            self.model = self._load_pickled_model(folder, model["modelFile"], self.model_pt_path)
            self.model.to(self.device)
        elif self.model_pt_path and self.model_pt_path.endswith(".pt"):
            self.model = self._load_torchscript_model(self.model_pt_path)
        else:
            raise RuntimeError(
                "expected a serialized file of TorchScript, .pt, or a model file with its class; "
                f"got {model.get('serializedFile') or 'none'}"
            )
        self.model.eval()
        self.mapping = labels.load_label_mapping(os.path.join(folder, "index_to_name.json"))
        self.initialized = True

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return torch.jit.load(model_pt_path, map_location=self.device)

    def _load_pickled_model(
        self, model_dir: str, model_file: str, model_pt_path: str | None
    ) -> Any:
        """Return the one class of a module of the archive, with its weights."""
        module = self.context.import_module(model_file.removesuffix(".py"))
        classes = labels.list_classes_from_module(module)
        if len(classes) != 1:
            names = ", ".join(each.__name__ for each in classes) or "none"
            raise ValueError(f"{model_file}: expected one class, that of the model; got {names}")
        model = classes[0]()
        if model_pt_path:
            model.load_state_dict(torch.load(model_pt_path, map_location=self.device))
        return model

    def preprocess(self, data: Any) -> Any:
        """Return the tensor of a batch."""
        return torch.as_tensor(data, device=self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what the model gives for a batch."""
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    def postprocess(self, data: Any) -> Any:
        """Return a list of an answer for each request."""
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """Return a list of an answer for each request of a batch."""
        self.context = context
        return self.postprocess(self.inference(self.preprocess(data)))


class VisionHandler(BaseHandler):
    """Takes pictures, or tensors as nested lists.

    Attributes:
        image_processing: makes a tensor of a picture.
    """

    image_processing: Any = None

    def preprocess(self, data: Iterable[Any]) -> Any:
        """Return the tensor of a batch of pictures."""
        images = []
        for row in data:
            image = row.get("data") or row.get("body")
            if isinstance(image, str):
                image = base64.b64decode(image)
            if isinstance(image, bytes | bytearray):
                image = self.image_processing(transforms.opened(image))
            else:
                image = torch.FloatTensor(image)
            images.append(image)
        return torch.stack(images).to(self.device)


class ImageClassifier(VisionHandler):
    """Gives the best classes of a picture, by their names where index_to_name.json has some."""

    topk = 5
    image_processing: Any = transforms.Prepared()

    def set_max_result_classes(self, topk: int) -> None:
        """Set how many classes an answer has."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return how many classes an answer has."""
        return self.topk

    def postprocess(self, data: Any) -> Any:
        """Return a mapping of class to probability for each picture."""
        found = torch.topk(torch.softmax(data, dim=1), self.topk, dim=1)
        return labels.map_class_to_label(
            found.values.tolist(), self.mapping, found.indices.tolist()
        )


class ImageSegmenter(VisionHandler):
    """Gives class and probability of each pixel."""

    image_processing: Any = transforms.Prepared()

    def postprocess(self, data: Any) -> Any:
        """Return lists of pairs, row by row of the picture."""
        best = torch.softmax(data["out"], dim=1).max(dim=1)
        return torch.stack([best.indices.to(best.values.dtype), best.values], dim=3).tolist()


class ObjectDetector(VisionHandler):
    """Gives what it finds in a picture with a score of at least `threshold`."""

    image_processing: Any = staticmethod(transforms.to_tensor)
    threshold = 0.5

    def postprocess(self, data: Any) -> Any:
        """Return a list for each picture: a mapping of class to box, and the score."""
        return [
            [
                labels.map_class_to_label([[box]], self.mapping, [[kind]])[0] | {"score": score}
                for box, kind, score in zip(
                    *(row[key][row["scores"] >= self.threshold].tolist() for key in _FOUND),
                    strict=True,
                )
            ]
            for row in data
        ]


_FOUND = ("boxes", "labels", "scores")
