# SPDX-License-Identifier: Apache-2.0
"""From a portrait to rig parameters: the stand-in where no tracker has looked at it.

The paper tracks the portrait with Pixel3DMM. A small network cannot replace that; it gives a head
of about the right shape, so that the pipeline runs where no tracker does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Dinov2Model, PreTrainedModel

from ..geometry.structures import POSE_NAMES, RigParams
from ..guarded_push import GuardedPush
from .configuration_rig_regressor import RigRegressorConfig
from .strict_loading import StrictLoading


class RigRegressor(GuardedPush, StrictLoading, PreTrainedModel):
    """A vision transformer with a linear head for shape, expression and joint rotations."""

    config_class = RigRegressorConfig
    base_model_prefix = "rig_regressor"
    main_input_name = "pixel_values"

    def __init__(self, config: RigRegressorConfig) -> None:
        super().__init__(config)
        self.image_encoder = Dinov2Model(config.image_config)
        num_angles = 3 * len(POSE_NAMES)
        num_outputs = config.num_betas + config.num_expressions + num_angles
        self.head = nn.Linear(2 * config.image_config.hidden_size, num_outputs)
        self.post_init()

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Tokens of the portraits: the whole, then the patches. [B, 3, H, W] -> [B, M, D]"""
        return self.image_encoder(pixel_values).last_hidden_state

    def read_params(self, image_tokens: Tensor) -> RigParams:
        """Parameters of the portraits behind the tokens, without translation. [B, M, D]"""
        pooled = torch.cat([image_tokens[:, 0], image_tokens[:, 1:].mean(1)], dim=-1)
        outputs = self.head(pooled).float()
        sizes = [self.config.num_betas, self.config.num_expressions, 3 * len(POSE_NAMES)]
        betas, expression, angles = outputs.split(sizes, dim=-1)
        # A small gain keeps the untrained network at the neutral head.
        poses = self.config.max_angle * torch.tanh(angles / self.config.max_angle)
        named = dict(zip(POSE_NAMES, poses.split(3, dim=-1), strict=True))
        transl = outputs.new_zeros(len(outputs), 3)
        return RigParams(betas=betas, expression=expression, transl=transl, **named)

    def forward(self, pixel_values: Tensor) -> RigParams:
        """Parameters of the portraits, without translation.

        Args:
            pixel_values: Processed portraits. [B, 3, H, W]

        Returns:
            One frame per portrait.
        """
        return self.read_params(self.encode_image(pixel_values))
