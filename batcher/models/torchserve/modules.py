"""The names under `ts` by which handlers import what TorchServe gives them.

    from ts.torch_handler.base_handler import BaseHandler

Modules of these names are made here, and hold the classes of this package. They are the same for
all models, so they stay. An installed TorchServe is not asked: it imports libraries for other
models, and its handlers answer the same.

Each has a spec, as what Python imports: a module without one counts as put there by the code of a
model that loads meanwhile, which would get it for itself alone (`version_code/plain_names.py`).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from batcher.models.torchserve import context, handlers, labels

_UTIL = (labels.list_classes_from_module, labels.load_label_mapping, labels.map_class_to_label)
_CONTENTS: dict[str, tuple[Any, ...]] = {
    "ts": (),
    "ts.context": (context.Context, context.RequestProcessor),
    "ts.handler_utils": (),
    "ts.handler_utils.timer": (labels.timed,),
    "ts.metrics": (),
    "ts.metrics.dimension": (context.Dimension,),
    "ts.metrics.metric_type_enum": (context.MetricTypes,),
    "ts.torch_handler": (),
    "ts.torch_handler.base_handler": (handlers.BaseHandler,),
    "ts.torch_handler.vision_handler": (handlers.VisionHandler,),
    "ts.torch_handler.image_classifier": (handlers.ImageClassifier,),
    "ts.torch_handler.image_segmenter": (handlers.ImageSegmenter,),
    "ts.torch_handler.object_detector": (handlers.ObjectDetector,),
    "ts.utils": (),
    "ts.utils.util": (*_UTIL, labels.PredictionException),
}


def names_for_handlers() -> str:
    """Return the names of the modules that hold something, for an error."""
    return ", ".join(name for name, contents in _CONTENTS.items() if contents)


def put_modules() -> None:
    """Have `import ts…` find the modules of this file. Inference thread."""
    for name, contents in _CONTENTS.items():
        module = sys.modules.get(name)
        if module is None:
            module = ModuleType(name, "What TorchServe gives handlers.")
            module.__path__ = []
            module.__spec__ = ModuleSpec(name, None, is_package=True)
            sys.modules[name] = module
            above, _, last = name.rpartition(".")
            if above:
                setattr(sys.modules[above], last, module)
        for each in contents:
            setattr(module, each.__name__, each)
    sys.modules["ts"].__dict__["__version__"] = "0.12.0"
