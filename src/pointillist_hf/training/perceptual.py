# SPDX-License-Identifier: Apache-2.0
"""The third term of Eq. 6: how far two pictures are apart to a network. Images are [C, H, W, 3].

The paper takes LPIPS, whose weights nobody may pass on with this package. Without them the term is
left out, or its stand-in is taken, which has a name of its own: it is another distance, in the
features of the image encoder that is there anyhow.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from transformers import PreTrainedModel

from ..pretrained.lpips import LpipsNetwork, perceptual_distance
from .loop_config import LoopConfig


class LpipsDistance(nn.Module):
    """LPIPS, the paper's choice, averaged over pictures.

    Args:
        network: Kept frozen.
    """

    def __init__(self, network: LpipsNetwork) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, rendered: Tensor, target: Tensor) -> Tensor:
        """[C, H, W, 3] x 2 -> one number"""
        return perceptual_distance(rendered, target, self.network).mean()


class FeatureDistance(nn.Module):
    """Mean squared distance of the unit patch features of a frozen vision transformer.

    Args:
        image_encoder: Kept frozen.
    """

    def __init__(self, image_encoder: PreTrainedModel) -> None:
        super().__init__()
        self.image_encoder = image_encoder.eval().requires_grad_(False)

    def forward(self, rendered: Tensor, target: Tensor) -> Tensor:
        """[C, H, W, 3] x 2 -> one number"""
        config = self.image_encoder.config
        first = 1 + getattr(config, "num_register_tokens", 0)
        features = []
        for images in (rendered, target):
            pixels = interpolate(
                images.permute(0, 3, 1, 2), (config.image_size,) * 2, mode="bilinear"
            )
            states = self.image_encoder((pixels - 0.45) / 0.225).last_hidden_state
            features.append(normalize(states[:, first:], dim=-1))
        return (features[0] - features[1]).square().sum(-1).mean()


def open_perceptual(
    config: LoopConfig, image_encoder: PreTrainedModel | None = None
) -> nn.Module | None:
    """The term that the settings ask for; None leaves it out.

    Raises:
        FileNotFoundError: LPIPS is asked for, and its weights are not there.
        ValueError: Features are asked for where there is no image encoder, or a file of weights is
            another one.
    """
    if config.perceptual == "none":
        return None
    if config.perceptual == "lpips":
        paths = {"trunk_path": config.lpips_weights, "head_path": config.lpips_heads}
        return LpipsDistance(LpipsNetwork.read(config.lpips_trunk, **paths))
    if image_encoder is None:
        raise ValueError(
            "`perceptual` must be 'lpips' or 'none' in this stage, got 'features': it has no image "
            "encoder."
        )
    return FeatureDistance(image_encoder)
