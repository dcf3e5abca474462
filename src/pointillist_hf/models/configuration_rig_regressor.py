# SPDX-License-Identifier: Apache-2.0
"""Configuration of the rig regressor."""

# Without `from __future__ import annotations`: `strict` does not check types that are strings.

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Dinov2Config, PreTrainedConfig


@strict
class RigRegressorConfig(PreTrainedConfig):
    """Sizes of `RigRegressor`; the number of coefficients must be those of the rig it serves."""

    model_type = "pointillist_rig_regressor"
    sub_configs = {"image_config": Dinov2Config}  # noqa: RUF012  transformers' class attribute

    image_config: Dinov2Config | dict[str, Any] | None = None
    num_betas: int = 300
    num_expressions: int = 100
    max_angle: float = 0.8  # radians, bound of every pose component
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: object) -> None:
        """Builds the sub-configuration from its dictionary."""
        if not isinstance(self.image_config, Dinov2Config):
            self.image_config = Dinov2Config(**(self.image_config or {}))
        super().__post_init__(**kwargs)
