# SPDX-License-Identifier: Apache-2.0
"""Pretrained encoders in the place of those that are trained here (paper Sec. 4.1).

With an image encoder, such as DINOv2, the generator needs no regressor to be trained first.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import AutoConfig
from transformers.image_processing_base import ImageProcessingMixin

from ..models.configuration_conditioner import (
    IMAGE_CONFIGS,
    AvatarConditionerConfig,
    ImageConfig,
    PointCloudEncoderConfig,
    check_image_size,
)
from ..models.modeling_conditioner import AvatarConditioner
from ..models.tokenization_points import PointTokenizer
from ..portraits.image_processing_portrait import PortraitImageProcessor
from .recipes import SIZES, build_conditioner_config, build_image_processor


@dataclass(frozen=True)
class Encoders:
    """Which encoders the conditioner takes over, frozen.

    Args:
        image: Folder or Hub id of a DINOv2, with or without registers, or a DINOv3.
        point_cloud: Folder of a `PointCloudEncoder`, such as `convert_michelangelo` writes. It is
            read from there wherever the conditioner goes.
        image_size: Side of the portraits, pixels; None is that of the size. It must divide into
            the encoder's patches.
        are_inside: Whether the image encoder's weights are saved with the conditioner, so that
            nobody has to have them; else they are read from where they are.
    """

    image: str | None = None
    point_cloud: str | None = None
    image_size: int | None = None
    are_inside: bool = False

    def __post_init__(self) -> None:
        if self.image is None and (self.image_size is not None or self.are_inside):
            raise ValueError(
                "`image_size` and `are_inside` must come with an image encoder; without one, "
                "portraits are as `size` says."
            )


def build_processor(size: str, encoders: Encoders) -> PortraitImageProcessor:
    """The processor that makes pictures as the image encoder was trained with.

    Raises:
        OSError: There is no such encoder, or it does not say what pictures must be like.
        ValueError: It is of another kind, or the size does not divide into its patches.
    """
    if encoders.image is None:
        return build_image_processor(size)
    side = encoders.image_size or SIZES[size].image_size
    check_image_size(side, read_image_config(encoders.image))
    said, _ = ImageProcessingMixin.get_image_processor_dict(encoders.image)
    missing = [name for name in ("image_mean", "image_std") if name not in said]
    if missing:
        raise ValueError(
            f"`image_encoder` must say in preprocessor_config.json how pictures are normalised, "
            f"and {encoders.image} lacks {' and '.join(missing)}."
        )
    return PortraitImageProcessor(
        size=side, image_mean=said["image_mean"], image_std=said["image_std"]
    )


def build_conditioner(
    size: str, tokenizer: PointTokenizer, encoders: Encoders, image_size: int
) -> AvatarConditioner:
    """A new conditioner with those encoders that are given.

    Args:
        size: One of `recipes.SIZES`, for the rest.
        tokenizer: Of the data set.
        encoders: From elsewhere.
        image_size: Of the processor.
    """
    values = build_conditioner_config(size, tokenizer).to_dict()
    for name in ("model_type", "transformers_version", "dtype", "architectures"):
        values.pop(name, None)
    if encoders.image is not None:
        values["image_config"] = read_image_config(encoders.image)
        values["image_size"] = image_size
        values["image_encoder_source"] = None if encoders.are_inside else encoders.image
    if encoders.point_cloud is not None:
        values["point_cloud_config"] = PointCloudEncoderConfig.from_pretrained(encoders.point_cloud)
        values["point_cloud_encoder_source"] = encoders.point_cloud
    conditioner = AvatarConditioner(AvatarConditionerConfig(**values))
    given = {"image_encoder": encoders.image, "point_cloud_encoder": encoders.point_cloud}
    for name, source in given.items():
        if source is not None:
            conditioner.attach_encoder(name, source)
    return conditioner


def read_image_config(source: str) -> ImageConfig:
    """The configuration of an image encoder.

    Raises:
        OSError: There is no such encoder.
        ValueError: It is of another kind.
    """
    config = AutoConfig.from_pretrained(source)
    if config.model_type not in IMAGE_CONFIGS:
        raise ValueError(
            f"`image_encoder` must be one of {', '.join(IMAGE_CONFIGS)}, and {source} is "
            f"{config.model_type}."
        )
    return config
