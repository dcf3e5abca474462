# SPDX-License-Identifier: Apache-2.0
"""What the generator looks at: the portrait and the tracked head (paper Sec. 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Dinov2Model, PreTrainedModel
from transformers import initialization as init

from ..guarded_push import GuardedPush
from .attention_blocks import CrossBlock, SelfBlock, fourier_features
from .configuration_conditioner import AvatarConditionerConfig, PointCloudEncoderConfig
from .strict_loading import StrictLoading


class PointCloudEncoder(GuardedPush, StrictLoading, PreTrainedModel):
    """Surface samples with normals -> a fixed number of tokens, in Michelangelo's architecture."""

    config_class = PointCloudEncoderConfig
    base_model_prefix = "point_cloud_encoder"

    def __init__(self, config: PointCloudEncoderConfig) -> None:
        super().__init__(config)
        size, heads = config.hidden_size, config.num_attention_heads
        self.latents = nn.Embedding(config.num_latents, size)
        self.input_proj = nn.Linear(6 + 6 * config.num_frequencies, size)
        self.cross_block = CrossBlock(size, heads, size)
        self.blocks = nn.ModuleList(SelfBlock(size, heads) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(size)
        self.post_init()

    def forward(self, points: Tensor) -> Tensor:
        """Tokens of a cloud; the order of its points does not matter.

        Args:
            points: Position in the cube's coordinates, then unit normal. [B, P, 6]

        Returns:
            [B, num_latents, hidden_size]
        """
        positions, normals = points.split(3, dim=-1)
        features = fourier_features(positions, self.config.num_frequencies)
        samples = self.input_proj(torch.cat([features, normals], dim=-1))
        latents = self.latents.weight.expand(len(points), -1, -1)
        latents = self.cross_block(latents, samples)
        for block in self.blocks:
            latents = block(latents)
        return self.norm(latents)


class AvatarConditioner(GuardedPush, StrictLoading, PreTrainedModel):
    """DINOv2 tokens of the portrait and tokens of the tracked head, side by side.

    Both are projected to one width and marked with a learned embedding of their kind.
    """

    config_class = AvatarConditionerConfig
    base_model_prefix = "conditioner"
    main_input_name = "pixel_values"

    def __init__(self, config: AvatarConditionerConfig) -> None:
        super().__init__(config)
        self.image_encoder = Dinov2Model(config.image_config)
        self.point_cloud_encoder = PointCloudEncoder(config.point_cloud_config)
        self.image_proj = nn.Linear(config.image_config.hidden_size, config.hidden_size)
        self.point_proj = nn.Linear(config.point_cloud_config.hidden_size, config.hidden_size)
        self.embed_kinds = nn.Embedding(2, config.hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.image_encoder or isinstance(module, Dinov2Model):
            return
        super()._init_weights(module)
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Tokens of the portraits: the whole, then the patches. [B, 3, H, W] -> [B, M, D]"""
        states = self.image_encoder(pixel_values).last_hidden_state
        return self.image_proj(states) + self.embed_kinds.weight[0]

    def encode_points(self, rig_points: Tensor) -> Tensor:
        """Tokens of the tracked heads.

        Args:
            rig_points: Canonical surface samples in metres with normals. [B, P, 6]

        Returns:
            [B, M, D]
        """
        positions, normals = rig_points.split(3, dim=-1)
        center = positions.new_tensor(self.config.cube_center)
        coords = (positions - center) / self.config.cube_half_extent
        states = self.point_cloud_encoder(torch.cat([coords, normals], dim=-1))
        return self.point_proj(states) + self.embed_kinds.weight[1]

    def forward(self, pixel_values: Tensor, rig_points: Tensor) -> Tensor:
        """Conditioning tokens: those of the image, then those of the head.

        Args:
            pixel_values: Processed portraits. [B, 3, H, W]
            rig_points: Canonical surface samples in metres with normals. [B, P, 6]

        Returns:
            [B, M, hidden_size]
        """
        image_tokens = self.encode_image(pixel_values)
        point_tokens = self.encode_points(rig_points.to(image_tokens.dtype))
        return torch.cat([image_tokens, point_tokens], dim=1)
