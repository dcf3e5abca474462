# SPDX-License-Identifier: Apache-2.0
"""Configurations of the conditioner and its point-cloud encoder (paper Sec. 4.1)."""

# Without `from __future__ import annotations`: `strict` does not check types that are strings.

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Dinov2Config, PreTrainedConfig


@strict
class PointCloudEncoderConfig(PreTrainedConfig):
    """Sizes of `PointCloudEncoder`; the defaults are Michelangelo's."""

    model_type = "pointillist_point_cloud_encoder"

    hidden_size: int = 768
    num_hidden_layers: int = 8
    num_attention_heads: int = 12
    num_latents: int = 257  # one for the whole cloud, the others for its parts
    num_frequencies: int = 8
    num_points: int = 4096  # samples of the rig that the conditioner draws
    initializer_range: float = 0.02


@strict
class AvatarConditionerConfig(PreTrainedConfig):
    """Parts of `AvatarConditioner`, and the cube in which the head is given to it."""

    model_type = "pointillist_conditioner"
    sub_configs = {  # noqa: RUF012  transformers' class attribute
        "image_config": Dinov2Config,
        "point_cloud_config": PointCloudEncoderConfig,
    }

    image_config: Dinov2Config | dict[str, Any] | None = None
    point_cloud_config: PointCloudEncoderConfig | dict[str, Any] | None = None

    # width of the conditioning tokens
    hidden_size: int = 1024

    # the tokenizer's cube, metres
    cube_center: list[float] | None = None
    cube_half_extent: float = 0.30

    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: object) -> None:
        """Builds the sub-configurations from their dictionaries."""
        if not isinstance(self.image_config, Dinov2Config):
            self.image_config = Dinov2Config(**(self.image_config or {}))
        if not isinstance(self.point_cloud_config, PointCloudEncoderConfig):
            self.point_cloud_config = PointCloudEncoderConfig(**(self.point_cloud_config or {}))
        if self.cube_center is None:
            self.cube_center = [0.0, -0.03, -0.04]
        super().__post_init__(**kwargs)
