# SPDX-License-Identifier: Apache-2.0
"""The metrics with the interface of Hugging Face's `evaluate`, for `modules/<name>/<name>.py`.

`evaluate.load(str(module_path("psnr")))` works without a network. Predictions and references are
pictures, PIL or arrays, or paths. What a metric needs beyond is an argument of `evaluate.load` with
the name that the class says; without it the usual places are searched, see
`pretrained.weights_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import datasets
import evaluate
import numpy as np
import torch
from PIL import Image
from torch import Tensor

CITATION = """@inproceedings{avatarpointillist,
  title = {AvatarPointillist: AutoRegressive 4D Gaussian Avatarization},
  booktitle = {CVPR},
  year = {2026},
}"""
INPUTS = """
Args:
    predictions: Pictures that a system made, RGB.
    references: Pictures to compare them with, one for each, of the same size.
Returns:
    The figure by its name, the mean over pictures where there is one for each; `values`, each
    picture's; `num_missed`, how many have none, because no face was found.
"""


def module_path(name: str) -> Path:
    """The folder of a metric, for `evaluate.load`.

    Raises:
        ValueError: There is no such metric.
    """
    folder = Path(str(files(__package__).joinpath("modules")))
    known = sorted(path.name for path in folder.iterdir() if (path / f"{path.name}.py").is_file())
    if name not in known:
        raise ValueError(f"`name` must be one of {', '.join(known)}, got {name!r}.")
    return folder / name


class PictureMetric(evaluate.Metric):
    """A metric of pairs of pictures, or of two sets of them.

    A subclass says what it is by `about` and `reference_url`, opens its network in `open`, and
    measures in `measure`.
    """

    about = ""
    inputs = INPUTS
    reference_url = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        names = self.options()
        self.given = {name: kwargs.pop(name) for name in names if name in kwargs}
        self.network: object = None
        super().__init__(*args, **kwargs)

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load` that belong to this metric."""
        return ()

    def open(self) -> object:
        """What the metric looks through."""
        return None

    def measure(self, images: list[Tensor], targets: list[Tensor]) -> dict[str, object]:
        """The figures. [H, W, 3] each, sRGB in [0, 1]"""
        raise NotImplementedError

    @staticmethod
    def feature() -> object:
        """What predictions and references are, for `datasets`."""
        return datasets.Image()

    def _info(self) -> evaluate.MetricInfo:
        feature = self.feature()
        return evaluate.MetricInfo(
            description=self.about,
            citation=CITATION,
            inputs_description=self.inputs,
            features=datasets.Features({"predictions": feature, "references": feature}),
            reference_urls=[self.reference_url] if self.reference_url else [],
        )

    def _download_and_prepare(self, dl_manager: object) -> None:
        """Opens what is there; nothing is downloaded."""
        self.network = self.open()

    def _compute(
        self, predictions: Sequence[Image.Image], references: Sequence[Image.Image]
    ) -> dict[str, object]:
        return self.measure([_pixels(p) for p in predictions], [_pixels(r) for r in references])


def each(
    name: str,
    metric: Callable[[Tensor, Tensor], Tensor],
    images: Sequence[Tensor],
    targets: Sequence[Tensor],
) -> dict[str, object]:
    """The mean of a metric over pairs, which may be of different sizes; NaN counts as missed."""
    pairs = zip(images, targets, strict=True)
    values = [float(metric(image[None], target[None])) for image, target in pairs]
    found = [value for value in values if value == value]
    mean = sum(found) / len(found) if found else float("nan")
    return {name: mean, "values": values, "num_missed": len(values) - len(found)}


def _pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32).copy()) / 255
