"""Models that look at pictures: torchvision, timm and transformers, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from batcher.core.spec import Array
from tests.integration.models.case import Case, Reference, Rows

BATCH = {0: torch.export.Dim("batch", min=1, max=1024)}


def floats(*shape: int) -> Array:
    """Return random numbers of 0 to 1, the same each time."""
    return np.random.default_rng(1).random(shape, np.float32)


def pixels(*shape: int) -> Array:
    """Return random pixels of 0 to 255, the same each time."""
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def save_weights(module: torch.nn.Module, file: Path) -> None:
    """Write the weights of `module` as a user would."""
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, file)


def save_export(module: torch.nn.Module, file: Path, *example: torch.Tensor) -> None:
    """Export `module` with a free batch axis for each input."""
    program = torch.export.export(module, example, dynamic_shapes=tuple(BATCH for _ in example))
    torch.export.save(program, file)


def called(module: torch.nn.Module, *outputs: str) -> Any:
    """Return a function that calls `module` with the inputs in order."""

    def answer(inputs: dict[str, Array]) -> Rows:
        with torch.inference_mode():
            result = module(*map(torch.from_numpy, inputs.values()))
        if isinstance(result, torch.Tensor):
            result = {outputs[0]: result}
        return {name: result[name].numpy() for name in outputs}

    return answer


def resnet(folder: Path) -> Reference:
    """Classification of torchvision, by its own function."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net = resnet18().eval()
    save_weights(net, folder / "resnet18.safetensors")
    return Reference({"x": floats(5, 3, 64, 64)}, called(net, "scores"))


def detector(folder: Path) -> Reference:
    """Detection of torchvision: unequal numbers of boxes."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    net = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=5
    ).eval()
    # The library's own first weights find the same in every picture.
    torch.nn.init.normal_(net.rpn.head.cls_logits.weight)
    torch.nn.init.normal_(net.roi_heads.box_predictor.cls_score.weight, std=0.005)
    for part in net.backbone.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    file = folder / "detector.safetensors"
    save_file({f"net.{name}": value for name, value in net.state_dict().items()}, file)

    def answer(inputs: dict[str, Array]) -> Rows:
        with torch.inference_mode():
            found = net(list(torch.from_numpy(inputs["image"])))
        return {
            name: [one[name].numpy() for one in found] for name in ("boxes", "labels", "scores")
        }

    return Reference({"image": floats(3, 3, 80, 112)}, answer)


def segmenter(folder: Path) -> Reference:
    """Segmentation of torchvision, exported: its output is a mapping."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).eval()
    save_export(net, folder / "lraspp.pt2", torch.zeros(2, 3, 64, 64))
    return Reference({"input": floats(4, 3, 64, 64)}, called(net, "out"))


class Regions(torch.nn.Module):
    """One region of each map of features, by an operator of torchvision."""

    def forward(self, features: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        """Return 3 by 3 values of the part of `features` in `box`."""
        from torchvision.ops import roi_align

        index = torch.arange(box.shape[0], dtype=box.dtype, device=box.device)
        return roi_align(features, torch.cat([index[:, None], box], dim=1), 3)


def regions(folder: Path) -> Reference:
    """An exported program that calls an operator of torchvision."""
    example = torch.zeros(2, 8, 16, 16), torch.zeros(2, 4)
    save_export(Regions().eval(), folder / "regions.pt2", *example)
    corners = np.sort(floats(4, 2, 2) * 16, axis=1).reshape(4, 4)
    inputs = {"features": floats(4, 8, 16, 16), "box": np.ascontiguousarray(corners)}
    return Reference(inputs, called(Regions(), "region"))


def timm_vit(folder: Path) -> Reference:
    """A vision transformer of timm."""
    import timm

    torch.manual_seed(0)
    net = timm.create_model("test_vit", num_classes=10).eval()
    save_weights(net, folder / "vit.safetensors")
    return Reference({"x": floats(4, 3, 160, 160)}, called(net, "scores"))


def timm_traced(folder: Path) -> Reference:
    """A convolutional network of timm, traced to TorchScript."""
    import timm

    torch.manual_seed(0)
    net = timm.create_model("test_efficientnet", num_classes=10).eval()
    torch.jit.save(torch.jit.trace(net, torch.zeros(2, 3, 160, 160)), folder / "efficientnet.pt")
    return Reference({"x": floats(4, 3, 160, 160)}, called(net, "scores"))


def vit(folder: Path) -> Reference:
    """A vision transformer of transformers, with its image processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=3,
    )
    net = ViTForImageClassification(config).eval()
    net.save_pretrained(folder)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)

    def answer(inputs: dict[str, Array]) -> Rows:
        with torch.inference_mode():
            result = net(**processor(list(inputs["image"]), return_tensors="pt"))
        return {"logits": result.logits.numpy()}

    return Reference({"image": pixels(4, 48, 40, 3)}, answer)


CASES = [
    Case("resnet", ("torchvision",), resnet),
    Case("detector", ("torchvision",), detector, ragged=True),
    Case("segmenter", ("torchvision",), segmenter),
    Case("regions", ("torchvision",), regions),
    Case("timm_vit", ("timm",), timm_vit),
    Case("timm_traced", ("timm",), timm_traced),
    Case("vit", ("transformers",), vit),
]
