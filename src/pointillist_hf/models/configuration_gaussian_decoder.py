# SPDX-License-Identifier: Apache-2.0
"""Configuration of the Gaussian decoder (paper Sec. 4.2)."""

# Without `from __future__ import annotations`: `strict` does not check types that are strings.

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class GaussianDecoderConfig(PreTrainedConfig):
    """Sizes and bounds of `GaussianDecoder`."""

    model_type = "pointillist_gaussian_decoder"

    # transformer; the paper does not give its sizes
    hidden_size: int = 512
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_frequencies: int = 10

    # whether the points look at each other, as the paper's do; else every point is on its own
    use_self_attention: bool = True

    # what a point is known by, the rows of the paper's Table 2
    inputs: Literal[
        "both",  # where it lies and what the generator thought of it: P and F, as in the paper
        "positions",  # P alone
        "features",  # F alone: the splat lies at P, which the network is not told
        "template",  # P of the head's own vertices, in place of those of the generator
    ] = "both"
    # width of the generator's hidden states F; None without, where "both" means "positions"
    generator_hidden_size: int | None = 1024
    # width of the conditioning tokens if the layers look at them; the paper's decoder does not
    cross_attention_size: int | None = None

    # what a point knows of the photograph
    image_inputs: Literal[
        "none",  # nothing, as in the paper: colours come from the features alone
        "projected",  # what it shows where it falls in the photograph, see `PointSights`
    ] = "none"
    num_sight_features: int = 0  # width of `PointSights.features`

    # the tokenizer's cube, and the side of one of its bins, metres
    cube_center: list[float] | None = None
    cube_half_extent: float = 0.30
    bin_size: float = 0.6 / 1024

    # bounds, metres
    max_offset: float = 0.01
    max_scale: float = 0.05
    initial_scale: float = 0.003
    initial_opacity: float = 0.8

    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: object) -> None:
        """Fills in the default cube, FLAME's, and that a decoder without F has no width for it."""
        if self.cube_center is None:
            self.cube_center = [0.0, -0.03, -0.04]
        if self.inputs == "both" and self.generator_hidden_size is None:
            self.inputs = "positions"
        if self.inputs in ("positions", "template"):
            self.generator_hidden_size = None
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Every rule that ties two fields together."""
        if self.inputs == "features" and self.generator_hidden_size is None:
            raise ValueError(
                "`generator_hidden_size` must be the width of the generator with "
                "`inputs='features'`, got None."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of "
                f"`num_attention_heads` ({self.num_attention_heads})."
            )
        if (self.image_inputs == "projected") != (self.num_sight_features > 0):
            raise ValueError(
                "`num_sight_features` must be positive with `image_inputs='projected'` and 0 "
                f"without, got {self.num_sight_features} and {self.image_inputs!r}."
            )
        if not 0 < self.initial_scale < self.max_scale or not 0 < self.initial_opacity < 1:
            raise ValueError(
                "`initial_scale` must lie between 0 and `max_scale`, and `initial_opacity` between "
                f"0 and 1, got {self.initial_scale}, {self.max_scale} and {self.initial_opacity}."
            )
