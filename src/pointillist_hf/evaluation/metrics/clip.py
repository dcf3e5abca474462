# SPDX-License-Identifier: Apache-2.0
"""Cosine of the CLIP embeddings of two pictures, the paper's measure of identity (ref. 54).

The paper does not say which CLIP; ViT-L/14 of OpenAI is assumed. This is the cosine of two
pictures, in [-1, 1], and not CLIPScore, which compares a picture with a text. Background, light and
pose count as much as the face.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import CLIPVisionModelWithProjection

from ...pretrained.weights_files import FOLDER_VARIABLE, MissingWeightsError, WeightsFile

CLIP_NAME = "clip-vit-large-patch14"
CLIP_FILE = WeightsFile("clip", f"{CLIP_NAME}/model.safetensors", f"openai/{CLIP_NAME}", None)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def load_clip(folder: str | Path | None = None) -> CLIPVisionModelWithProjection:
    """The vision model of a folder as transformers saves it.

    Args:
        folder: None takes `clip-vit-large-patch14` in the folder of POINTILLIST_WEIGHTS.

    Raises:
        MissingWeightsError: There is none.
    """
    place = find_clip(folder)
    return CLIPVisionModelWithProjection.from_pretrained(place, local_files_only=True).eval()


def find_clip(folder: str | Path | None = None) -> Path:
    """The folder of the model, see `load_clip`."""
    place = Path(folder or Path(os.environ.get(FOLDER_VARIABLE, "."), CLIP_NAME))
    if not (place / "config.json").is_file() or not (place / "model.safetensors").is_file():
        raise MissingWeightsError(
            f"Metric `clip` needs config.json and model.safetensors of {CLIP_FILE.source}, and "
            f"they are not in {place}. Put the folder {CLIP_NAME} into that of {FOLDER_VARIABLE}. "
            "Nothing is downloaded.",
            CLIP_FILE.name,
        )
    return place


def clip_embeddings(images: Tensor, model: CLIPVisionModelWithProjection) -> Tensor:
    """Embeddings of pictures, sRGB in [0, 1]. [B, H, W, 3] -> [B, D]"""
    size = model.config.image_size
    values = torch.stack([_prepare(image, size) for image in images])
    with torch.no_grad():
        return model(pixel_values=values).image_embeds


def clip_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of pairs of embeddings. [B, D], [B, D] -> [B]"""
    return cosine_similarity(first, second, dim=-1)


def _prepare(image: Tensor, size: int) -> Tensor:
    """As CLIP's own processor: the shorter side bicubically, the middle, normalised. [3, S, S]"""
    pixels = (255 * image).round().clamp(0, 255).byte().numpy(force=True)
    picture = Image.fromarray(pixels)
    factor = size / min(picture.size)
    picture = picture.resize([int(factor * s) for s in picture.size], Image.Resampling.BICUBIC)
    x, y = ((s - size) // 2 for s in picture.size)
    cut = np.asarray(picture.crop((x, y, x + size, y + size)), np.float32).copy() / 255
    return (torch.from_numpy(cut) - torch.tensor(MEAN)).div(torch.tensor(STD)).permute(2, 0, 1)
