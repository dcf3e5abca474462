# SPDX-License-Identifier: Apache-2.0
"""From points to splats: the Gaussian decoder (paper Sec. 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..geometry.structures import Gaussians
from .attention_blocks import CrossBlock, SelfBlock, fourier_features
from .configuration_gaussian_decoder import GaussianDecoderConfig

# Widths of the output, in this order.
ATTRIBUTES = {"colors": 3, "opacities": 1, "scales": 3, "quats": 4, "offsets": 3}


@dataclass
class GaussianDecoderOutput(ModelOutput):
    """Splats of B clouds, padded to N points.

    Args:
        means: Point plus offset, canonical, metres. [B, N, 3]
        offsets: Metres. [B, N, 3]
        quats: wxyz, unit length. [B, N, 4]
        scales: Metres. [B, N, 3]
        opacities: In (0, 1). [B, N]
        colors: sRGB in (0, 1). [B, N, 3]
    """

    means: Tensor | None = None
    offsets: Tensor | None = None
    quats: Tensor | None = None
    scales: Tensor | None = None
    opacities: Tensor | None = None
    colors: Tensor | None = None

    def gaussians(self, row: int, num_points: int) -> Gaussians:
        """The splats of one cloud, without padding."""
        fields = ("means", "quats", "scales", "opacities", "colors")
        return Gaussians(**{name: getattr(self, name)[row, :num_points] for name in fields})


class GaussianDecoderLayer(nn.Module):
    """Looks at the conditioning, if configured, then at the other points."""

    def __init__(self, config: GaussianDecoderConfig) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_attention_heads
        context_size = config.cross_attention_size
        self.cross_block = None if context_size is None else CrossBlock(size, heads, context_size)
        self.self_block = SelfBlock(size, heads)

    def forward(self, states: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """[B, N, D], [B, M, C], mask [B, N] -> [B, N, D]"""
        if self.cross_block is not None:
            states = self.cross_block(states, context)
        return self.self_block(states, mask)


class GaussianDecoder(PreTrainedModel):
    """A transformer over the points of a cloud that predicts what each of them looks like.

    Its input per point is the geometric feature P (the encoded position) next to the generator's
    feature F (the hidden states of the point's four tokens, merged by an MLP).
    """

    config_class = GaussianDecoderConfig
    base_model_prefix = "gaussian_decoder"
    main_input_name = "means"

    def __init__(self, config: GaussianDecoderConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.position_mlp = nn.Sequential(
            nn.Linear(3 + 6 * config.num_frequencies, size), nn.GELU(), nn.Linear(size, size)
        )
        self.token_mlp = nn.Sequential(
            nn.Linear(4 * config.generator_hidden_size, size), nn.GELU(), nn.Linear(size, size)
        )
        self.input_proj = nn.Linear(2 * size, size)
        self.layers = nn.ModuleList(
            GaussianDecoderLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, sum(ATTRIBUTES.values()))
        self.post_init()

    def forward(
        self,
        means: Tensor,
        token_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
    ) -> GaussianDecoderOutput:
        """Splats of the points.

        Args:
            means: Decoded token positions, canonical, metres. [B, N, 3]
            token_hidden_states: The generator's final states. [B, N, 4, generator_hidden_size]
            attention_mask: 0 at padding. [B, N]
            encoder_hidden_states: Conditioning tokens, needed with `cross_attention_size`.
                [B, M, cross_attention_size]
        """
        if self.config.cross_attention_size is not None and encoder_hidden_states is None:
            raise ValueError("`encoder_hidden_states` must be given: this decoder looks at them.")
        center = means.new_tensor(self.config.cube_center)
        coords = (means - center) / self.config.cube_half_extent
        features = fourier_features(coords, self.config.num_frequencies, base=math.pi)
        dtype = self.head.weight.dtype
        geometric = self.position_mlp(features.to(dtype))
        generated = self.token_mlp(token_hidden_states.flatten(2).to(dtype))
        states = self.input_proj(torch.cat([geometric, generated], dim=-1))
        for layer in self.layers:
            states = layer(states, encoder_hidden_states, attention_mask)
        raw = self.head(self.norm(states)).float()
        return self.activate(means.float(), raw)

    def activate(self, means: Tensor, raw: Tensor) -> GaussianDecoderOutput:
        """Bounds the raw outputs so that any of them is a splat. [B, N, 3], [B, N, 14]"""
        config = self.config
        parts = dict(zip(ATTRIBUTES, raw.split(list(ATTRIBUTES.values()), dim=-1), strict=True))
        offsets = config.max_offset * torch.tanh(parts["offsets"])
        scale_bias = _logit(config.initial_scale / config.max_scale)
        upright = raw.new_tensor([1.0, 0.0, 0.0, 0.0])
        return GaussianDecoderOutput(
            means=means + offsets,
            offsets=offsets,
            quats=normalize(parts["quats"] + upright, dim=-1),
            scales=config.max_scale * torch.sigmoid(parts["scales"] + scale_bias),
            opacities=torch.sigmoid(parts["opacities"][..., 0] + _logit(config.initial_opacity)),
            colors=torch.sigmoid(parts["colors"]),
        )


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
