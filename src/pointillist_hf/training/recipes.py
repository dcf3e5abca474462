# SPDX-License-Identifier: Apache-2.0
"""Named model sizes and the training settings that go with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transformers import Dinov2Config

from ..models.configuration_conditioner import AvatarConditionerConfig
from ..models.configuration_gaussian_decoder import GaussianDecoderConfig
from ..models.configuration_point_generator import PointGeneratorConfig
from ..models.configuration_rig_regressor import RigRegressorConfig
from ..models.tokenization_points import PointTokenizer, TokenOrder
from ..portraits.image_processing_portrait import PortraitImageProcessor
from ..refinement.point_sights import NUM_SIGHT_FEATURES
from ..rigs.head_rig import HeadRig


@dataclass(frozen=True)
class ModelSizes:
    """Widths and depths of all networks; the cube, bins and faces come from the data set."""

    image_size: int
    image_encoder: dict[str, int]
    conditioner_size: int
    point_cloud_encoder: dict[str, int]
    generator: dict[str, object]
    decoder: dict[str, object]
    layout_size: int | None = None  # of the conditioner


SIZES = {
    # For tests: learns one person in seconds.
    "nano": ModelSizes(
        image_size=56,
        image_encoder={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        conditioner_size=32,
        point_cloud_encoder={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_latents": 8,
            "num_points": 64,
        },
        generator={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "sliding_window": 128,
            "loss_head": "typed",
        },
        decoder={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    ),
    # The embedded checkpoint, trainable on two CPU cores.
    "tiny": ModelSizes(
        image_size=112,
        image_encoder={"hidden_size": 256, "num_hidden_layers": 5, "num_attention_heads": 4},
        conditioner_size=256,
        point_cloud_encoder={
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_latents": 33,
            "num_points": 512,
        },
        generator={
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "intermediate_size": 512,
            "sliding_window": 1024,
            "loss_head": "typed",
            "tie_word_embeddings": True,
        },
        decoder={
            "hidden_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_frequencies": 8,
        },
    ),
    # The paper's setting as far as it says; the rest is Meshtron's 0.5B and DINOv2-L.
    "paper": ModelSizes(
        image_size=518,
        image_encoder={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        conditioner_size=1024,
        point_cloud_encoder={},
        generator={},
        decoder={},
    ),
}

# The same networks, but the generator steps from point to point; as many weights (within 2 %).
SIZES["nano-depth"] = replace(
    SIZES["nano"],
    generator={
        **SIZES["nano"].generator,
        "point_head": "depth",
        "num_hidden_layers": 1,
        "depth_num_hidden_layers": 1,
        "depth_intermediate_size": 32,
    },
)
SIZES["tiny-depth"] = replace(
    SIZES["tiny"],
    generator={
        **SIZES["tiny"].generator,
        "point_head": "depth",
        "num_hidden_layers": 3,
        "depth_num_hidden_layers": 1,
        "depth_intermediate_size": 256,
    },
)
# The generator reads the tracked head and is told a layout, and its windows are 512 points.
ANCHORED = {
    "binding_head": "anchored",
    "token_order": "byzx",
    "layout_heights": [0.0, 0.02, 0.05],
}
SIZES["nano-anchored"] = replace(
    SIZES["nano-depth"],
    generator={**SIZES["nano-depth"].generator, **ANCHORED},
    layout_size=4,
)
SIZES["tiny-anchored"] = replace(
    SIZES["tiny-depth"],
    generator={**SIZES["tiny-depth"].generator, **ANCHORED, "sliding_window": 2048},
    layout_size=8,
)
# Decoders that are affordable at thousands of points on a CPU: as large as that which looks at the
# photograph, and points by themselves.
POINT_DECODER = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_frequencies": 6,
    "use_self_attention": False,
}
SIZES["tiny-points"] = replace(SIZES["tiny-anchored"], decoder=POINT_DECODER)
SIZES["paper-depth"] = replace(
    SIZES["paper"], generator={"point_head": "depth", "loss_head": "typed", "num_hidden_layers": 21}
)


def build_image_processor(size: str) -> PortraitImageProcessor:
    """The processor that makes pictures of the size the networks expect."""
    return PortraitImageProcessor(size=SIZES[size].image_size)


def build_regressor_config(size: str, rig: HeadRig) -> RigRegressorConfig:
    """Of `RigRegressor`."""
    return RigRegressorConfig(
        image_config=_image_config(SIZES[size]),
        num_betas=rig.num_betas,
        num_expressions=rig.num_expressions,
    )


def build_conditioner_config(size: str, tokenizer: PointTokenizer) -> AvatarConditionerConfig:
    """Of `AvatarConditioner`."""
    sizes = SIZES[size]
    return AvatarConditionerConfig(
        image_config=_image_config(sizes),
        point_cloud_config=dict(sizes.point_cloud_encoder),
        hidden_size=sizes.conditioner_size,
        layout_size=sizes.layout_size,
        cube_center=list(tokenizer.cube_center),
        cube_half_extent=tokenizer.cube_half_extent,
    )


def build_generator_config(size: str, tokenizer: PointTokenizer) -> PointGeneratorConfig:
    """Of `PointGeneratorForCausalLM`."""
    sizes = SIZES[size]
    settings = dict(sizes.generator)
    if settings.get("binding_head") == "anchored":
        settings["cube_center"] = list(tokenizer.cube_center)
        settings["cube_half_extent"] = tokenizer.cube_half_extent
    return PointGeneratorConfig(
        num_bins=tokenizer.num_bins,
        num_faces=tokenizer.num_faces,
        cross_attention_size=sizes.conditioner_size,
        **{"token_order": tokenizer.token_order, **settings},
    )


def token_order_of(size: str, tokenizer: PointTokenizer) -> TokenOrder:
    """The order that a size wants, or else the tokenizer's own."""
    return SIZES[size].generator.get("token_order", tokenizer.token_order)


def build_decoder_config(
    size: str,
    tokenizer: PointTokenizer,
    generator: PointGeneratorConfig,
    *,
    inputs: str = "both",
) -> GaussianDecoderConfig:
    """Of `GaussianDecoder` with some `inputs`; small ones look at the conditioning too.

    A small generator keeps little in its states that points do not need, such as the colour of a
    shirt, so the small decoders read it off the portrait's tokens.
    """
    is_small = not size.startswith("paper")
    return GaussianDecoderConfig(
        inputs=inputs,
        generator_hidden_size=generator.hidden_size,
        cross_attention_size=generator.cross_attention_size if is_small else None,
        cube_center=list(tokenizer.cube_center),
        cube_half_extent=tokenizer.cube_half_extent,
        bin_size=tokenizer.bin_size,
        initial_scale=0.006 if is_small else 0.003,
        **SIZES[size].decoder,
    )


def build_projected_decoder_config(tokenizer: PointTokenizer) -> GaussianDecoderConfig:
    """Of a `GaussianDecoder` that looks at the photograph and at nothing else.

    Points by themselves did as well as points that look at each other, at 60 % of the time.
    """
    return GaussianDecoderConfig(
        **POINT_DECODER,
        inputs="positions",
        image_inputs="projected",
        num_sight_features=NUM_SIGHT_FEATURES,
        cube_center=list(tokenizer.cube_center),
        cube_half_extent=tokenizer.cube_half_extent,
        bin_size=tokenizer.bin_size,
        max_offset=0.004,
    )


def _image_config(sizes: ModelSizes) -> Dinov2Config:
    mlp_ratio = 4
    return Dinov2Config(
        image_size=sizes.image_size, patch_size=14, mlp_ratio=mlp_ratio, **sizes.image_encoder
    )
