# SPDX-License-Identifier: Apache-2.0
"""LPIPS, version 0.1: distance of two pictures in the features of an ImageNet network.

Features at five places of a fixed trunk are made unit vectors; their squared differences are
weighted by channel, averaged over the picture and added up. The paper names no trunk; AlexNet is
the one that its authors recommend for evaluation, VGG-16 the one that training often takes.
Pictures are taken in [0, 1] and shown to the network in [-1, 1], as it was trained.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .torch_checkpoint import read_checkpoint
from .weights_files import WeightsFile

Trunk = Literal["alex", "vgg"]

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
TRUNK_FILES = {
    "alex": WeightsFile("lpips", "alexnet-owt-7be5be79.pth", "torchvision's AlexNet", "7be5be79"),
    "vgg": WeightsFile("lpips", "vgg16-397923af.pth", "torchvision's VGG-16", "397923af"),
}
_HEADS_SOURCE = "the packages torchmetrics or lpips"
HEAD_FILES = {
    "alex": WeightsFile("lpips", "alex.pth", _HEADS_SOURCE, "df73285e35b22355"),
    "vgg": WeightsFile("lpips", "vgg.pth", _HEADS_SOURCE, "a78928a0af1e5f0f"),
}
# Folders of those packages in which the heads lie.
HEAD_FOLDERS = {
    "torchmetrics": "functional/image/lpips_models",
    "lpips": "weights/v0.1",
}


class LpipsNetwork(nn.Module):
    """A trunk and its heads, with random weights unless `read` made it."""

    def __init__(self, trunk: Trunk = "alex") -> None:
        super().__init__()
        if trunk not in TAPS:
            raise ValueError(f"`trunk` must be 'alex' or 'vgg', got {trunk!r}.")
        self.trunk = trunk
        self.features = _alexnet() if trunk == "alex" else _vgg16()
        self.heads = nn.ParameterList(torch.rand(width) for width in CHANNELS[trunk])
        self.eval().requires_grad_(False)

    @classmethod
    def read(
        cls,
        trunk: Trunk = "alex",
        *,
        trunk_path: str | Path | None = None,
        head_path: str | Path | None = None,
    ) -> LpipsNetwork:
        """The network with its published weights.

        Args:
            trunk: "alex" or "vgg".
            trunk_path: torchvision's file, or its folder; None looks in the usual places.
            head_path: File of the heads; None takes the one of an installed package.

        Raises:
            MissingWeightsError: A file is not there; the message says where it comes from.
            ValueError: A file is another one.
        """
        network = cls(trunk)
        tensors = read_checkpoint(TRUNK_FILES[trunk].find(trunk_path))
        heads = read_checkpoint(find_heads(trunk, head_path))
        kept = {name: value for name, value in tensors.items() if name.startswith("features.")}
        rows = {f"heads.{i}": heads[f"lin{i}.model.1.weight"].flatten() for i in range(5)}
        network.load_state_dict({**kept, **rows})
        return network

    def forward(self, images: Tensor) -> list[Tensor]:
        """Unit features at the five places. [B, H, W, 3] -> five of [B, C, H', W']"""
        shift, scale = images.new_tensor(SHIFT), images.new_tensor(SCALE)
        x = ((2 * images - 1 - shift) / scale).permute(0, 3, 1, 2)
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS[self.trunk]:
                found.append(normalize(x, dim=1, eps=1e-10))
        return found


def perceptual_distance(images: Tensor, targets: Tensor, network: LpipsNetwork) -> Tensor:
    """LPIPS of pairs of pictures, with gradients; 0 for equal ones. [C, H, W, 3] -> [C]"""
    total = images.new_zeros(len(images))
    pairs = zip(network(images), network(targets), network.heads, strict=True)
    for first, second, head in pairs:
        weighted = torch.einsum("bchw,c->bhw", (first - second).square(), head)
        total = total + weighted.mean((1, 2))
    return total


def find_heads(trunk: Trunk, path: str | Path | None = None) -> Path:
    """The file of the heads: as given, in the usual places, or in an installed package."""
    if path is None:
        for package, folder in HEAD_FOLDERS.items():
            spec = importlib.util.find_spec(package)
            inside = Path(spec.origin).parent / folder if spec and spec.origin else None
            if inside and (inside / HEAD_FILES[trunk].name).is_file():
                path = inside
                break
    return HEAD_FILES[trunk].find(path)


def _alexnet() -> nn.Sequential:
    """The features of AlexNet, numbered as torchvision numbers them."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )


def _vgg16() -> nn.Sequential:
    """The features of VGG-16, likewise."""
    layers, inputs = [], 3
    for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2)] if block else []
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers, nn.MaxPool2d(2))
