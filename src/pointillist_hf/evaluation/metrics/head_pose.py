# SPDX-License-Identifier: Apache-2.0
"""APD, the difference of head poses as 6DRepNet360 reads them (ref. 23 of the paper).

The network is a ResNet-50 that ends in six numbers: two columns of a rotation, made orthonormal.
Angles are pitch, yaw and roll. The paper gives no unit; 1e-3 rad is the reading under which its
figures are plausible, and results say that the unit is assumed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, normalize, relu

from ...pretrained.torch_checkpoint import read_checkpoint
from ...pretrained.weights_files import WeightsFile

POSE_FILE = WeightsFile(
    "apd",
    "6DRepNet360_Full-Rotation_300W_LP+Panoptic.pth",
    "the page of 6DRepNet360's authors",
    None,
)
RESIZED, CROPPED = 256, 224  # pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# By how much the box of the landmarks grows, in its own size: left, top, right, bottom.
MARGINS = (0.4, 0.4, 0.4, 0.12)


class Bottleneck(nn.Module):
    """A block of ResNet, with torchvision's names."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 4 width, H', W']"""
        passed = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)))
        x = relu(self.bn2(self.conv2(x)))
        return relu(self.bn3(self.conv3(x)) + passed)


class HeadPoseNetwork(nn.Module):
    """Crops of heads -> rotations, with random weights unless `read` made it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _layer(64, 64, 3, 1)
        self.layer2 = _layer(256, 128, 4, 2)
        self.layer3 = _layer(512, 256, 6, 2)
        self.layer4 = _layer(1024, 512, 3, 2)
        self.linear_reg = nn.Linear(2048, 6)
        self.eval().requires_grad_(False)

    @classmethod
    def read(cls, path: str | Path | None = None) -> HeadPoseNetwork:
        """The network with its published weights; see `WeightsFile.find` for the errors."""
        network = cls()
        network.load_state_dict(read_checkpoint(POSE_FILE.find(path)))
        return network

    def forward(self, crops: Tensor) -> Tensor:
        """Rotations of heads. [B, 224, 224, 3], sRGB in [0, 1] -> [B, 3, 3]"""
        x = (crops - crops.new_tensor(MEAN)) / crops.new_tensor(STD)
        x = relu(self.bn1(self.conv1(x.permute(0, 3, 1, 2))))
        x = max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return rotation_from_columns(self.linear_reg(x.mean((2, 3))))


def rotation_from_columns(numbers: Tensor) -> Tensor:
    """The rotation whose first column points along the first three numbers. [B, 6] -> [B, 3, 3]"""
    first = normalize(numbers[:, :3], dim=-1)
    third = normalize(torch.linalg.cross(first, numbers[:, 3:]), dim=-1)
    return torch.stack([first, torch.linalg.cross(third, first), third], dim=-1)


def euler_degrees(rotations: Tensor) -> Tensor:
    """Pitch, yaw and roll, of the order z y x. [B, 3, 3] -> [B, 3]"""
    length = (rotations[:, 0, 0].square() + rotations[:, 1, 0].square()).sqrt()
    pitch = torch.atan2(rotations[:, 2, 1], rotations[:, 2, 2])
    yaw = torch.atan2(-rotations[:, 2, 0], length)
    roll = torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0])
    return torch.rad2deg(torch.stack([pitch, yaw, roll], dim=-1))


def pose_distance(rotations: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of the three angles, the short way round, 1e-3 rad. [B]"""
    gaps = euler_degrees(rotations) - euler_degrees(targets)
    wrapped = (gaps + 180) % 360 - 180
    return 1000 * torch.deg2rad(wrapped).abs().mean(-1)


def geodesic_degrees(rotations: Tensor, targets: Tensor) -> Tensor:
    """Angle of the rotation from one to the other. [B]"""
    trace = torch.einsum("bij,bij->b", rotations.double(), targets.double())
    return torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).arccos()).float()


def cut_head(image: Tensor, landmarks: Tensor) -> Tensor:
    """The head, cut as the network was tested. [H, W, 3], [K, 2] -> [224, 224, 3]"""
    low, high = landmarks[:, :2].amin(0), landmarks[:, :2].amax(0)
    width, height = (high - low).tolist()
    left, top, right, bottom = MARGINS
    box = (
        math.floor(low[0] - left * width),
        math.floor(low[1] - top * height),
        math.ceil(high[0] + right * width),
        math.ceil(high[1] + bottom * height),
    )
    pixels = (255 * image).round().clamp(0, 255).byte().numpy(force=True)
    crop = Image.fromarray(pixels).crop(box)
    factor = RESIZED / min(crop.size)
    crop = crop.resize([round(factor * s) for s in crop.size], Image.Resampling.BILINEAR)
    x, y = ((s - CROPPED) // 2 for s in crop.size)
    cut = crop.crop((x, y, x + CROPPED, y + CROPPED))
    return torch.from_numpy(np.asarray(cut, np.float32).copy()) / 255


def _layer(inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(depth - 1)))
