# SPDX-License-Identifier: Apache-2.0
"""Floor 6. Tells diffusers and transformers about this package's classes.

Diffusers resolves the classes of a pipeline through two private tables, and refuses packages that
are not in them when a pipeline comes from the Hub. This is the one file that touches them, and the
reason for the upper bound on diffusers' version.
"""

from __future__ import annotations

from diffusers.pipelines import pipeline_loading_utils
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

# Bases that users may swap for their own come last: the last match is what a component passed to
# from_pretrained must be an instance of.
PIPELINE_CLASSES = (
    "PortraitImageProcessor",
    "PortraitTracker",
    "RigRegressor",
    "AvatarConditioner",
    "PointTokenizer",
    "PointGeneratorForCausalLM",
    "GaussianDecoder",
    "ProceduralHeadRig",
    "FlameHeadRig",
    "HeadRig",
)


def register_with_diffusers() -> None:
    """Makes the components loadable by `DiffusionPipeline.from_pretrained`."""
    table = {name: ["save_pretrained", "from_pretrained"] for name in PIPELINE_CLASSES}
    pipeline_loading_utils.LOADABLE_CLASSES["pointillist_hf"] = table
    pipeline_loading_utils.ALL_IMPORTABLE_CLASSES.update(table)


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
