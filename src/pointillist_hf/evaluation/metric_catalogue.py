# SPDX-License-Identifier: Apache-2.0
"""Every figure that results may hold: its name, what it is, and whether the paper's tables have it.

A name of the paper belongs to the exact definition with checked weights. What else is measured has
a name of its own and never enters the paper's columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["paper", "standin", "extra"]


@dataclass(frozen=True)
class Metric:
    """A column."""

    name: str
    title: str
    kind: Kind
    unit: str
    higher_is_better: bool
    decimals: int
    tasks: tuple[str, ...]
    of_sets: bool = False  # one number for all pictures, not one for each
    needs: str = ""  # the file without which it cannot be measured
    note: str = ""


BOTH, SELF = ("self", "cross"), ("self",)
_METRICS = (
    Metric("lpips", "LPIPS", "paper", "", False, 3, SELF, needs="alexnet-owt-7be5be79.pth"),
    Metric(
        "fid", "FID", "paper", "", False, 1, BOTH, True,
        needs="pt_inception-2015-12-05-6726825d.pth",
        note="against the real pictures of the people shown",
    ),
    Metric(
        "clip", "CLIP", "paper", "", True, 3, ("cross",), needs="clip-vit-large-patch14",
        note="cosine to the source picture; the paper's CLIP model is assumed",
    ),
    Metric(
        "akd", "AKD", "paper", "px", False, 2, BOTH, needs="landmarks of mediapipe (.npz)",
        note="478 keypoints, at 512 x 512, of the faces found; in cross reenactment to the "
        "driver's face",
    ),
    Metric(
        "apd", "APD", "paper", "1e-3 rad", False, 2, BOTH,
        needs="6DRepNet360_Full-Rotation_300W_LP+Panoptic.pth",
        note="unit assumed; in cross reenactment to the driver's pose",
    ),
    Metric(
        "akd_468", "AKD-468", "standin", "px", False, 2, BOTH, needs="a portrait tracker",
        note="468 keypoints of this package's tracker, at 512 x 512, of the faces found",
    ),
    Metric(
        "akd_468_aligned", "AKD-468 aligned", "standin", "px", False, 2, BOTH,
        needs="a portrait tracker", note="the same, aligned in each picture by its rigid keypoints",
    ),
    Metric(
        "pose_468_deg", "pose-468", "standin", "deg", False, 2, BOTH, needs="a portrait tracker",
        note="angle between the poses of the keypoints in space",
    ),
    Metric(
        "akd_aligned", "AKD aligned", "extra", "px", False, 2, BOTH,
        needs="landmarks of mediapipe (.npz)",
        note="AKD after the similarity that fits the rigid keypoints of each picture: without the "
        "place and size of the head, which one portrait does not show",
    ),
    Metric(
        "kid", "KID", "extra", "", False, 4, BOTH, True,
        needs="pt_inception-2015-12-05-6726825d.pth",
    ),
    Metric("psnr", "PSNR", "extra", "dB", True, 2, SELF, note="whole picture, RGB"),
    Metric("ssim", "SSIM", "extra", "", True, 3, SELF, note="whole picture, RGB"),
    Metric("laplacian_l1", "Laplacian L1", "extra", "", False, 4, SELF),
    Metric(
        "likeness", "likeness", "extra", "", False, 3, BOTH, needs="face_recognition_model.bin",
        note="distance to the source picture; below .35 the same person, above .5 a stranger",
    ),
)  # fmt: skip
CATALOGUE: Mapping[str, Metric] = {metric.name: metric for metric in _METRICS}
# The columns of the paper's tables, in their order.
TABLE_1 = {"self": ("lpips", "fid", "akd", "apd"), "cross": ("fid", "clip", "akd", "apd")}
TABLE_2 = {"self": TABLE_1["self"]}


def of_kinds(task: str, *kinds: Kind) -> list[Metric]:
    """Columns of a task, in the catalogue's order."""
    return [m for m in CATALOGUE.values() if task in m.tasks and m.kind in kinds]


def check_paper_columns(columns: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses a table under the paper's heading with anything else than the paper's metrics.

    Raises:
        ValueError: A column is a stand-in, an extra, or unknown.
    """
    for name in {name for names in columns.values() for name in names}:
        if name not in CATALOGUE or CATALOGUE[name].kind != "paper":
            raise ValueError(f"`{name}` is no metric of the paper, and has no place in its tables.")
