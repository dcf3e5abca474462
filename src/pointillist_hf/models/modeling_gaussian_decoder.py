# SPDX-License-Identifier: Apache-2.0
"""From points to splats: the Gaussian decoder (paper Sec. 4.2).

With `image_inputs="projected"` it departs from the paper: every point is posed as the photograph
shows the head (Eq. 5) and projected into it, and takes its colour from there. What it predicts is
then how far to trust that colour, and how its splat differs from a disc that covers its share of
the surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from ..geometry.rotations import axis_angle_to_quat, quat_multiply
from ..geometry.structures import Gaussians, TensorRecord
from ..guarded_push import GuardedPush
from .attention_blocks import CrossBlock, SelfBlock, fourier_features
from .configuration_gaussian_decoder import GaussianDecoderConfig
from .strict_loading import StrictLoading

# Widths of the output, in this order.
ATTRIBUTES = {"colors": 3, "opacities": 1, "scales": 3, "quats": 4, "offsets": 3}
# The same of splats that start from discs; their rotations are axis-angle.
DISC_ATTRIBUTES = {"colors": 3, "trust": 1, "opacities": 1, "scales": 3, "turns": 3, "offsets": 3}
# How far raw outputs lead: unit steps of the logits, log scales, radians.
STEP, LOG_SCALE_RANGE, TURN_RANGE = 2.0, 1.3, 1.2
INITIAL_TRUST, INITIAL_DISC_OPACITY = 0.88, 0.92
HEAD_STD = 0.01  # discs in the photograph's colours are a good start


@dataclass(frozen=True)
class PointSights(TensorRecord):
    """What N points show in a photograph, and the discs that their splats start from.

    Leading dimensions are those of a batch of clouds, if it is one.
    """

    features: Tensor  # [..., N, K] how they are seen
    samples: Tensor  # [..., N, S, 3] colours of several kinds, sRGB; the first is `filled`
    quats: Tensor  # [..., N, 4] wxyz
    scales: Tensor  # [..., N, 3] metres

    @property
    def filled(self) -> Tensor:
        """The colour seen, or lent by points that are seen. [..., N, 3]"""
        return self.samples[..., 0, :]


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


class GaussianDecoderLayer(GradientCheckpointingLayer):
    """Looks at the conditioning, if configured, then at the other points."""

    def __init__(self, config: GaussianDecoderConfig) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_attention_heads
        context_size = config.cross_attention_size
        self.cross_block = None if context_size is None else CrossBlock(size, heads, context_size)
        self.self_block = SelfBlock(size, heads) if config.use_self_attention else None
        self.point_block = None if config.use_self_attention else PointBlock(size)

    def forward(self, states: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """[B, N, D], [B, M, C], mask [B, N] -> [B, N, D]"""
        if self.cross_block is not None:
            states = self.cross_block(states, context)
        if self.point_block is not None:
            return self.point_block(states)
        return self.self_block(states, mask)


class PointBlock(nn.Module):
    """A residual block of each point by itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, states: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]"""
        return states + self.mlp(self.norm(states))


class GaussianDecoder(GuardedPush, StrictLoading, PreTrainedModel):
    """A transformer over the points of a cloud that predicts what each of them looks like.

    Its input per point is the geometric feature P (the encoded position) next to the generator's
    feature F (the hidden states of the point's four tokens, merged by an MLP), and, if configured,
    next to what the point shows in the photograph. `inputs` leaves out P or F, for comparison.
    """

    config_class = GaussianDecoderConfig
    base_model_prefix = "gaussian_decoder"
    main_input_name = "means"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GaussianDecoderLayer"]  # noqa: RUF012

    def __init__(self, config: GaussianDecoderConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        num_inputs = 0
        if config.inputs != "features":
            self.position_mlp = nn.Sequential(
                nn.Linear(3 + 6 * config.num_frequencies, size), nn.GELU(), nn.Linear(size, size)
            )
            num_inputs += 1
        if config.generator_hidden_size is not None:
            self.token_mlp = nn.Sequential(
                nn.Linear(4 * config.generator_hidden_size, size), nn.GELU(), nn.Linear(size, size)
            )
            num_inputs += 1
        if config.image_inputs == "projected":
            self.sight_mlp = nn.Sequential(
                nn.Linear(config.num_sight_features, size), nn.GELU(), nn.Linear(size, size)
            )
            num_inputs += 1
        self.input_proj = nn.Linear(num_inputs * size, size)
        self.layers = nn.ModuleList(
            GaussianDecoderLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(size)
        outputs = ATTRIBUTES if config.image_inputs == "none" else DISC_ATTRIBUTES
        self.head = nn.Linear(size, sum(outputs.values()))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if self.config.image_inputs == "projected" and module is getattr(self, "head", None):
            init.normal_(module.weight, std=HEAD_STD)

    def forward(
        self,
        means: Tensor,
        token_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        sights: PointSights | None = None,
    ) -> GaussianDecoderOutput:
        """Splats of the points.

        Args:
            means: Decoded token positions, or with `inputs="template"` vertices of the head,
                canonical, metres. [B, N, 3]
            token_hidden_states: The generator's final states, needed with `generator_hidden_size`;
                zero for points that it did not write. [B, N, 4, generator_hidden_size]
            attention_mask: 0 at padding. [B, N]
            encoder_hidden_states: Conditioning tokens, needed with `cross_attention_size`.
                [B, M, cross_attention_size]
            sights: What the points show in the photograph, needed with `image_inputs="projected"`.
        """
        wanted = {
            "encoder_hidden_states": (self.config.cross_attention_size, encoder_hidden_states),
            "token_hidden_states": (self.config.generator_hidden_size, token_hidden_states),
            "sights": (self.config.num_sight_features or None, sights),
        }
        for name, (width, value) in wanted.items():
            if width is not None and value is None:
                raise ValueError(f"`{name}` must be given: this decoder looks at them.")
        states = self.input_proj(self.embed_points(means, token_hidden_states, sights))
        for layer in self.layers:
            states = layer(states, encoder_hidden_states, attention_mask)
        raw = self.head(self.norm(states)).float()
        if self.config.image_inputs == "projected":
            return self.activate_discs(means.float(), raw, sights)
        return self.activate(means.float(), raw)

    def embed_points(
        self, means: Tensor, token_hidden_states: Tensor | None, sights: PointSights | None
    ) -> Tensor:
        """What is known of the points, as `forward` gets it, side by side. [B, N, K D]"""
        dtype, inputs = self.head.weight.dtype, []
        if self.config.inputs != "features":
            center = means.new_tensor(self.config.cube_center)
            coords = (means - center) / self.config.cube_half_extent
            encoded = fourier_features(coords, self.config.num_frequencies, base=math.pi)
            inputs.append(self.position_mlp(encoded.to(dtype)))
        if self.config.generator_hidden_size is not None:
            inputs.append(self.token_mlp(token_hidden_states.flatten(2).to(dtype)))
        if self.config.image_inputs == "projected":
            colors = sights.samples.flatten(-2) - 0.5
            seen = torch.cat([sights.features, colors], dim=-1)
            inputs.append(self.sight_mlp(seen.to(dtype)))
        return torch.cat(inputs, dim=-1)

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

    def activate_discs(
        self, means: Tensor, raw: Tensor, sights: PointSights
    ) -> GaussianDecoderOutput:
        """The discs of the points, changed as far as the bounds allow. [B, N, 3], [B, N, 14]"""
        widths = list(DISC_ATTRIBUTES.values())
        parts = dict(zip(DISC_ATTRIBUTES, raw.split(widths, dim=-1), strict=True))
        trust = torch.sigmoid(STEP * parts["trust"] + _logit(INITIAL_TRUST))
        own = torch.sigmoid(STEP * parts["colors"])
        opacities = STEP * parts["opacities"][..., 0] + _logit(INITIAL_DISC_OPACITY)
        turns = axis_angle_to_quat(TURN_RANGE * torch.tanh(parts["turns"]))
        offsets = self.config.max_offset * torch.tanh(parts["offsets"])
        return GaussianDecoderOutput(
            means=means + offsets,
            offsets=offsets,
            quats=normalize(quat_multiply(sights.quats, turns), dim=-1),
            scales=sights.scales * torch.exp(LOG_SCALE_RANGE * torch.tanh(parts["scales"])),
            opacities=torch.sigmoid(opacities),
            colors=trust * sights.filled + (1 - trust) * own,
        )


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
