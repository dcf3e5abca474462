# SPDX-License-Identifier: Apache-2.0
"""One tokenised avatar as a row of a data set, and back.

The columns of schema version 3; K portraits, V views:

    identity              string          who: a name that is stable within the source
    split                 string          "train" or "test"
    source                string          where the points come from
    licence               string          under which the row may be passed on
    rig_hash              string          of the rig that all numbers refer to, in rig/
    hair_style            string          "" where nobody knows
    num_points            int32           N
    input_ids             list<uint16>    4 (N + 2) tokens of `PointTokenizer`
    betas                 list<float32>   identity coefficients of the rig [S]
    static_offset         list<float32>   [V, 3] metres, what betas cannot say; [] is zero
    rig_points            list<float32>   [P, 6] conditioning points: place in metres, normal
    portraits             list<image>     the head in the frame of a portrait, RGBA
    portrait_expression   list<float32>   K x E values, row by row
    portrait_poses        list<float32>   K x 15: root, neck, jaw, left eye, right eye
    portrait_transl       list<float32>   K x 3 metres
    portrait_viewmats     list<float32>   K x 16, world to camera, OpenCV
    portrait_Ks           list<float32>   K x 9, pixels
    views                 list<image>     from all sides, RGBA; may be empty
    view_expression       list<float32>   V x E
    view_poses            list<float32>   V x 15
    view_transl           list<float32>   V x 3
    view_viewmats         list<float32>   V x 16
    view_Ks               list<float32>   V x 9
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from datasets import Features, Image, List, Value
from PIL import Image as PILImage
from torch import Tensor

from ...geometry.structures import POSE_NAMES, Cameras, CanonicalPoints, RigParams
from ...models.tokenization_points import PointTokenizer
from ...rigs.head_rig import HeadRig
from ..pictures import Pictures
from ..rig_reference import rig_hash

SCHEMA_VERSION = 3
MAX_VOCABULARY = 2**16  # of the ids as they are stored

# What is known of a portrait or a view.
PICTURE_COLUMNS = ("expression", "poses", "transl", "viewmats", "Ks")

FEATURES = Features(
    {
        **{name: Value("string") for name in ("identity", "split", "source", "licence")},
        **{name: Value("string") for name in ("rig_hash", "hair_style")},
        "num_points": Value("int32"),
        "input_ids": List(Value("uint16")),
        **{name: List(Value("float32")) for name in ("betas", "static_offset", "rig_points")},
        "portraits": List(Image()),
        **{f"portrait_{name}": List(Value("float32")) for name in PICTURE_COLUMNS},
        "views": List(Image()),
        **{f"view_{name}": List(Value("float32")) for name in PICTURE_COLUMNS},
    }
)


@dataclass(frozen=True)
class TokenisedPerson:
    """What a row says of a person, before it is written."""

    identity: str
    split: str
    source: str
    licence: str
    points: CanonicalPoints
    betas: Tensor  # [S]
    portraits: Pictures  # K, with alpha
    views: Pictures  # V, with alpha
    static_offset: Tensor | None = None  # [V, 3] metres
    hair_style: str = ""


def build_row(
    person: TokenisedPerson, rig: HeadRig, tokenizer: PointTokenizer, *, num_rig_points: int
) -> dict[str, object]:
    """The row of a person."""
    offset = person.static_offset
    has_offset = offset is not None and bool(offset.any())
    betas = person.betas[None]
    return {
        "identity": person.identity,
        "split": person.split,
        "source": person.source,
        "licence": person.licence,
        "rig_hash": rig_hash(rig),
        "hair_style": person.hair_style,
        "num_points": len(person.points),
        "input_ids": tokenizer.encode_points(person.points).tolist(),
        "betas": person.betas.tolist(),
        "static_offset": offset.flatten().tolist() if has_offset else [],
        "rig_points": rig.sample_points(betas, num_rig_points).flatten().tolist(),
        **_picture_columns("portrait", person.portraits),
        **_picture_columns("view", person.views),
    }


def _picture_columns(kind: str, pictures: Pictures) -> dict[str, object]:
    pixels = np.round(255 * pictures.images).astype(np.uint8)
    return {
        f"{kind}s": [PILImage.fromarray(image) for image in pixels],
        f"{kind}_expression": pictures.rig_params.expression.flatten().tolist(),
        f"{kind}_poses": pictures.rig_params.poses.flatten().tolist(),
        f"{kind}_transl": pictures.rig_params.transl.flatten().tolist(),
        f"{kind}_viewmats": pictures.cameras.viewmats.flatten().tolist(),
        f"{kind}_Ks": pictures.cameras.Ks.flatten().tolist(),
    }


def row_params(row: dict[str, list], kind: str) -> RigParams:
    """Rig parameters of a row's portraits or views. kind: "portrait" or "view"."""
    poses = torch.tensor(row[f"{kind}_poses"]).view(-1, len(POSE_NAMES), 3)
    frames, expression = len(poses), torch.tensor(row[f"{kind}_expression"])
    return RigParams(
        betas=torch.tensor(row["betas"]).expand(frames, -1),
        expression=expression.view(frames, len(expression) // max(frames, 1)),
        transl=torch.tensor(row[f"{kind}_transl"]).view(frames, 3),
        **dict(zip(POSE_NAMES, poses.unbind(1), strict=True)),
    )


def row_cameras(row: dict[str, list], kind: str) -> Cameras:
    """Cameras of a row's portraits or views. kind: "portrait" or "view"."""
    # Without views, the size of the portraits stands in.
    width, height = (row[f"{kind}s"] or row["portraits"])[0].size
    return Cameras(
        viewmats=torch.tensor(row[f"{kind}_viewmats"]).view(-1, 4, 4),
        Ks=torch.tensor(row[f"{kind}_Ks"]).view(-1, 3, 3),
        width=width,
        height=height,
    )


def picture_tensor(image: PILImage.Image) -> Tensor:
    """SRGB and alpha of a stored picture. [H, W, 4] in [0, 1]"""
    return torch.from_numpy(np.array(image.convert("RGBA"))).float() / 255
