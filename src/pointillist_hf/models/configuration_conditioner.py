# SPDX-License-Identifier: Apache-2.0
"""Configurations of the conditioner and its point-cloud encoder (paper Sec. 4.1)."""

# Without `from __future__ import annotations`: `strict` does not check types that are strings.

from typing import Any, get_args

from huggingface_hub.dataclasses import strict
from transformers import (
    AutoConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    PreTrainedConfig,
)

# What may look at the portrait; they differ in their registers, and in how they know places.
ImageConfig = Dinov2Config | Dinov2WithRegistersConfig | DINOv3ViTConfig
MICHELANGELO = "michelangelo"
IMAGE_CONFIGS = {config.model_type: config for config in get_args(ImageConfig)}


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
    origin: str | None = None  # "michelangelo": weights of others, which may not be passed on


@strict
class AvatarConditionerConfig(PreTrainedConfig):
    """Parts of `AvatarConditioner`, and the cube in which the head is given to it.

    Encoders are saved inside, unless they have a source: then they are read from there again, and
    nothing of them is saved but the SHA-256 of their weights.
    """

    model_type = "pointillist_conditioner"
    sub_configs = {  # noqa: RUF012  transformers' class attribute
        "image_config": AutoConfig,
        "point_cloud_config": PointCloudEncoderConfig,
    }

    image_config: PreTrainedConfig | dict[str, Any] | None = None  # by default a DINOv2
    image_size: int | None = None  # side of the portraits, pixels; None: as in pretraining
    image_encoder_source: str | None = None  # folder or Hub id
    image_encoder_sha256: str | None = None

    point_cloud_config: PointCloudEncoderConfig | dict[str, Any] | None = None
    point_cloud_encoder_source: str | None = None
    point_cloud_encoder_sha256: str | None = None

    # width of the conditioning tokens
    hidden_size: int = 1024

    # cells along the edge of the cube in which a `LayoutReader` foresees points; None: the paper's
    layout_size: int | None = None

    # the tokenizer's cube, metres
    cube_center: list[float] | None = None
    cube_half_extent: float = 0.30

    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: object) -> None:
        """Builds the sub-configurations from their dictionaries."""
        if not isinstance(self.image_config, PreTrainedConfig):
            self.image_config = _build_image_config(self.image_config or {})
        if not isinstance(self.point_cloud_config, PointCloudEncoderConfig):
            self.point_cloud_config = PointCloudEncoderConfig(**(self.point_cloud_config or {}))
        if self.cube_center is None:
            self.cube_center = [0.0, -0.03, -0.04]
        if self.image_size is None:
            self.image_size = getattr(self.image_config, "image_size", None)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuses encoders that are none of the known ones, and pictures that they cannot cut.

        Raises:
            ValueError: With what would do.
        """
        kind = self.image_config.model_type
        if kind not in IMAGE_CONFIGS:
            raise ValueError(
                f"`image_config` must be of one of {', '.join(IMAGE_CONFIGS)}, got {kind!r}."
            )
        check_image_size(self.image_size, self.image_config)


def check_image_size(size: int, image_config: ImageConfig) -> None:
    """Refuses portraits that do not divide into an encoder's patches.

    Raises:
        ValueError: With the nearest sizes that do.
    """
    patch = image_config.patch_size
    if size % patch:
        below = max(1, size // patch) * patch
        raise ValueError(
            f"`image_size` of the portraits must be a multiple of the patches of the image "
            f"encoder, {patch} pixels, got {size}; take {below} or {below + patch}."
        )


def _build_image_config(values: dict[str, Any]) -> PreTrainedConfig:
    kind = values.get("model_type", Dinov2Config.model_type)
    if kind not in IMAGE_CONFIGS:
        raise ValueError(
            f"`image_config` must have a `model_type` of {', '.join(IMAGE_CONFIGS)}, got {kind!r}."
        )
    return IMAGE_CONFIGS[kind](**{k: v for k, v in values.items() if k != "model_type"})
