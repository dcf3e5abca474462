# SPDX-License-Identifier: Apache-2.0
"""A small face recognition network: pictures of one person get 128 numbers that lie close together.

It is dlib's residual network with 29 layers, in the form in which the npm package
@vladmandic/face-api (MIT) ships it: a manifest that names the arrays, and one file that holds them
as 8-bit numbers. Development measures with it; the product does not contain it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, pad, relu

from ..pretrained.weights_files import WeightsFile

WEIGHTS_FILE = "face_recognition_model.bin"
MANIFEST_FILE = "face_recognition_model-weights_manifest.json"
SOURCE = "`npm pack @vladmandic/face-api@1.7.15` brings it, in the folder package/model"
CHECKSUM = "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"
RECOGNITION_FILE = WeightsFile("likeness", WEIGHTS_FILE, SOURCE, CHECKSUM)
CHIP_SIZE = 150  # pixels
MEAN_COLOR = (122.782, 117.001, 104.298)  # of 255

# Name, channels and whether it halves the picture, from the first block to the last.
BLOCKS = (
    *((f"conv32_{i}", 32, False) for i in (1, 2, 3)),
    ("conv64_down", 64, True),
    *((f"conv64_{i}", 64, False) for i in (1, 2, 3)),
    ("conv128_down", 128, True),
    *((f"conv128_{i}", 128, False) for i in (1, 2)),
    ("conv256_down", 256, True),
    *((f"conv256_{i}", 256, False) for i in (1, 2)),
    ("conv256_down_out", 256, True),
)


class ScaledConvolution(nn.Module):
    """A convolution, then a factor and a summand for each channel."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.factors = nn.Parameter(torch.ones(outputs, 1, 1))
        self.summands = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']"""
        return self.conv(x) * self.factors + self.summands


class ResidualBlock(nn.Module):
    """Two convolutions around which the input passes; `halves` makes the picture half as large."""

    def __init__(self, inputs: int, outputs: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        first = {"stride": 2, "padding": 0} if halves else {"stride": 1, "padding": 1}
        self.conv1 = ScaledConvolution(inputs, outputs, kernel=3, **first)
        self.conv2 = ScaledConvolution(outputs, outputs, kernel=3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']"""
        changed = self.conv2(relu(self.conv1(x)))
        passed = avg_pool2d(x, 2, 2) if self.halves else x
        # The convolution without padding may be a row and a column smaller, and have more channels.
        down, right = (passed.shape[i] - changed.shape[i] for i in (2, 3))
        changed = pad(changed, (0, right, 0, down))
        more = changed.shape[1] - passed.shape[1]
        return relu(changed + pad(passed, (0, 0, 0, 0, 0, more)))


class FaceRecognitionNetwork(nn.Module):
    """Face chips -> places in a space of 128 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = ScaledConvolution(3, 32, kernel=7, stride=2, padding=0)
        blocks, channels = {}, 32
        for name, outputs, halves in BLOCKS:
            blocks[name] = ResidualBlock(channels, outputs, halves=halves)
            channels = outputs
        self.blocks = nn.ModuleDict(blocks)
        self.fc = nn.Parameter(torch.zeros(channels, 128))

    @classmethod
    def read(cls, folder: str | Path, *, checksum: str | None = CHECKSUM) -> FaceRecognitionNetwork:
        """The network of a folder with the two files.

        Args:
            folder: Where the files lie; the file of weights itself will do.
            checksum: SHA-256 of the weights; None takes any.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: The weights are damaged, or those of another network.
        """
        folder = Path(folder)
        folder = folder.parent if folder.name == WEIGHTS_FILE else folder
        contents = _read_file(folder / WEIGHTS_FILE)
        found = hashlib.sha256(contents).hexdigest()
        if checksum is not None and found != checksum:
            raise ValueError(
                f"`{WEIGHTS_FILE}` must have sha256 {checksum}, and the one in {folder} has "
                f"{found}: it is damaged or another one. {SOURCE}."
            )
        manifest = json.loads(_read_file(folder / MANIFEST_FILE))
        network = cls()
        network.load_state_dict(_unpack(manifest, contents, network.state_dict()))
        return network.eval().requires_grad_(False)

    def forward(self, chips: Tensor) -> Tensor:
        """Places of faces; the distance of two says how alike they are.

        Args:
            chips: sRGB in [0, 1]. [B, 150, 150, 3]

        Returns:
            [B, 128]
        """
        x = (255 * chips - chips.new_tensor(MEAN_COLOR)) / 255
        x = relu(self.conv32_down(x.permute(0, 3, 1, 2)))
        x = max_pool2d(x, 3, 2)
        for block in self.blocks.values():
            x = block(x)
        return x.mean((2, 3)) @ self.fc


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"`{path.name}` must lie in {path.parent}, and there is none. {SOURCE}."
        )
    return path.read_bytes()


def state_name(name: str) -> str:
    """The name that an array of the manifest has in the network."""
    for theirs, ours in (
        ("/conv/filters", "/conv/weight"),
        ("/scale/weights", "/factors"),
        ("/scale/biases", "/summands"),
    ):
        name = name.replace(theirs, ours)
    is_outside = name == "fc" or name.startswith("conv32_down/")
    return ("" if is_outside else "blocks.") + name.replace("/", ".")


def _unpack(
    manifest: list[dict], contents: bytes, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The arrays of the file, under the network's names and in its shapes.

    Raises:
        ValueError: Manifest and file do not belong together, or to this network.
    """
    entries = [entry for group in manifest for entry in group["weights"]]
    names = {state_name(entry["name"]) for entry in entries}
    size = sum(_num_bytes(entry) for entry in entries)
    if names != set(state) or size != len(contents):
        raise ValueError(
            f"`{MANIFEST_FILE}` must describe the {len(state)} arrays of {WEIGHTS_FILE}, got "
            f"{len(names & set(state))} of them and {size:,} bytes for {len(contents):,}. {SOURCE}."
        )
    arrays, start = {}, 0
    for entry in entries:
        array = torch.from_numpy(_read_array(entry, contents, start))
        start += _num_bytes(entry)
        # Filters are stored with the channels last.
        array = array.permute(3, 2, 0, 1) if array.ndim == 4 else array
        name = state_name(entry["name"])
        arrays[name] = array.reshape(state[name].shape)
    return arrays


def _num_bytes(entry: dict) -> int:
    return math.prod(entry["shape"]) * _stored_type(entry).itemsize


def _stored_type(entry: dict) -> np.dtype:
    return np.dtype(entry.get("quantization", entry)["dtype"])


def _read_array(entry: dict, contents: bytes, start: int) -> np.ndarray:
    count = math.prod(entry["shape"])
    array = np.frombuffer(contents, _stored_type(entry), count, start).astype(np.float32)
    if "quantization" in entry:
        array = array * np.float32(entry["quantization"]["scale"])
        array = array + np.float32(entry["quantization"]["min"])
    return array.reshape(entry["shape"])
