# SPDX-License-Identifier: Apache-2.0
"""Floor 6. Makes this package's classes known to the Auto classes of transformers.

`lazy_registration` calls it when one of them is asked for.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from .models.configuration_conditioner import AvatarConditionerConfig, PointCloudEncoderConfig
from .models.configuration_gaussian_decoder import GaussianDecoderConfig
from .models.configuration_point_generator import PointGeneratorConfig
from .models.configuration_rig_regressor import RigRegressorConfig
from .models.modeling_conditioner import AvatarConditioner, PointCloudEncoder
from .models.modeling_gaussian_decoder import GaussianDecoder
from .models.modeling_point_generator import PointGeneratorForCausalLM, PointGeneratorModel
from .models.modeling_rig_regressor import RigRegressor
from .models.tokenization_points import PointTokenizer


def register_with_transformers() -> None:
    """Makes the models known to the Auto classes."""
    models = {
        AvatarConditionerConfig: AvatarConditioner,
        PointCloudEncoderConfig: PointCloudEncoder,
        GaussianDecoderConfig: GaussianDecoder,
        RigRegressorConfig: RigRegressor,
        PointGeneratorConfig: PointGeneratorModel,
    }
    for config, model in models.items():
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
    AutoModelForCausalLM.register(PointGeneratorConfig, PointGeneratorForCausalLM, exist_ok=True)
    AutoTokenizer.register(PointGeneratorConfig, PointTokenizer, exist_ok=True)
