# SPDX-License-Identifier: Apache-2.0
"""The features of FID: Inception of 2015 as TensorFlow published it, 2048 numbers a picture.

It is not torchvision's inception_v3: averages leave the border out, and the last block takes the
largest value instead of the average. Weights are those that pytorch-fid publishes. Pictures are
brought to 299 pixels as clean-fid does: bicubic, antialiased, each channel in floating point.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

from ...pretrained.torch_checkpoint import read_checkpoint
from ...pretrained.weights_files import WeightsFile

INCEPTION_FILE = WeightsFile(
    "fid", "pt_inception-2015-12-05-6726825d.pth", "the releases of pytorch-fid", "6726825d"
)
SIZE, WIDTH = 299, 2048


class NormalisedConvolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']"""
        return relu(self.bn(self.conv(x)))


Conv = NormalisedConvolution
# Kernels and paddings along one axis only.
ROW, COLUMN = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
SHORT_ROW, SHORT_COLUMN = (
    {"kernel": (1, 3), "padding": (0, 1)},
    {"kernel": (3, 1), "padding": (1, 0)},
)


def _average(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockA(nn.Module):
    """Mixed_5b to 5d: 35 x 35."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 35, 35] -> [B, 224 + pooled, 35, 35]"""
        middle = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), middle, double, self.branch_pool(_average(x))], 1)


class BlockB(nn.Module):
    """Mixed_6a: to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 35, 35] -> [B, C + 480, 17, 17]"""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """Mixed_6b to 6e: 17 x 17."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, inner, 1)
        self.branch7x7_2 = Conv(inner, inner, **ROW)
        self.branch7x7_3 = Conv(inner, 192, **COLUMN)
        self.branch7x7dbl_1 = Conv(768, inner, 1)
        self.branch7x7dbl_2 = Conv(inner, inner, **COLUMN)
        self.branch7x7dbl_3 = Conv(inner, inner, **ROW)
        self.branch7x7dbl_4 = Conv(inner, inner, **COLUMN)
        self.branch7x7dbl_5 = Conv(inner, 192, **ROW)
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 768, 17, 17] -> the same"""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """Mixed_7a: to 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(768, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(768, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, **ROW)
        self.branch7x7x3_3 = Conv(192, 192, **COLUMN)
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 768, 17, 17] -> [B, 1280, 8, 8]"""
        single = self.branch3x3_2(self.branch3x3_1(x))
        double = self.branch7x7x3_2(self.branch7x7x3_1(x))
        double = self.branch7x7x3_4(self.branch7x7x3_3(double))
        return torch.cat([single, double, max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """Mixed_7b and 7c: 8 x 8. The last takes the largest value where others take the average."""

    def __init__(self, inputs: int, *, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, **SHORT_ROW)
        self.branch3x3_2b = Conv(384, 384, **SHORT_COLUMN)
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, **SHORT_ROW)
        self.branch3x3dbl_3b = Conv(384, 384, **SHORT_COLUMN)
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 8, 8] -> [B, 2048, 8, 8]"""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = max_pool2d(x, 3, 1, 1) if self.is_last else _average(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([*parts, self.branch_pool(pooled)], 1)


class InceptionFeatures(nn.Module):
    """Pictures -> 2048 numbers each, with random weights unless `read` made it."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            BlockA(192, 32),
            BlockA(256, 64),
            BlockA(288, 64),
        )
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(128), BlockC(160)
        self.Mixed_6d, self.Mixed_6e = BlockC(160), BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, is_last=False), BlockE(2048, is_last=True)
        self.eval().requires_grad_(False)

    @classmethod
    def read(cls, path: str | Path | None = None) -> InceptionFeatures:
        """The network with its published weights; see `WeightsFile.find` for the errors."""
        tensors = read_checkpoint(INCEPTION_FILE.find(path))
        # The classifier and what trained it are not needed.
        kept = {k: v for k, v in tensors.items() if not k.startswith(("fc.", "AuxLogits."))}
        network = cls()
        network.load_state_dict(kept)
        return network

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures of 299 pixels, sRGB in [0, 1]. [B, 299, 299, 3] -> [B, 2048]"""
        x = 2 * images.permute(0, 3, 1, 2) - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, 2))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(x)))
        return self.Mixed_7c(self.Mixed_7b(x)).mean((2, 3))


def inception_features(images: Tensor, network: InceptionFeatures) -> Tensor:
    """Features of pictures of any size, sRGB in [0, 1]. [B, H, W, 3] -> [B, 2048]"""
    resized = torch.stack([resize_clean(image, SIZE) for image in images])
    with torch.no_grad():
        return network(resized)


def resize_clean(image: Tensor, size: int) -> Tensor:
    """The picture bicubically in another size, channel by channel, unrounded. [H, W, 3]"""
    channels = [
        np.asarray(Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC))
        for channel in 255 * image.permute(2, 0, 1).numpy(force=True).astype(np.float32)
    ]
    return torch.from_numpy(np.stack(channels, axis=-1)).clamp(0, 255) / 255
