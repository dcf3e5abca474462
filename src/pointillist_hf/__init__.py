# SPDX-License-Identifier: Apache-2.0
"""From one portrait to a drivable 3D Gaussian head: an open AvatarPointillist.

The public names below are imported when they are first used, in the order of the data flow.
"""

from __future__ import annotations

from importlib import import_module

from .lazy_registration import install

__version__ = "0.1.0"

_HOMES = {
    "PortraitTracker": "portraits.portrait_tracker",
    "PortraitImageProcessor": "portraits.image_processing_portrait",
    "RigRegressorConfig": "models.configuration_rig_regressor",
    "RigRegressor": "models.modeling_rig_regressor",
    "HeadRig": "rigs.head_rig",
    "ProceduralHeadRig": "rigs.procedural_rig",
    "FlameHeadRig": "rigs.flame_rig",
    "AvatarConditionerConfig": "models.configuration_conditioner",
    "PointCloudEncoderConfig": "models.configuration_conditioner",
    "AvatarConditioner": "models.modeling_conditioner",
    "PointCloudEncoder": "models.modeling_conditioner",
    "PointGeneratorConfig": "models.configuration_point_generator",
    "PointGeneratorModel": "models.modeling_point_generator",
    "PointGeneratorForCausalLM": "models.modeling_point_generator",
    "PointTokenizer": "models.tokenization_points",
    "GaussianDecoderConfig": "models.configuration_gaussian_decoder",
    "GaussianDecoder": "models.modeling_gaussian_decoder",
    "Avatar": "avatar",
    "AvatarPipeline": "pipeline_avatar",
    "AvatarPipelineOutput": "pipeline_output",
}

__all__ = ["__version__", *_HOMES]

# So that DiffusionPipeline and the Auto classes know the package from its import on.
install()

# What type checkers take for `typing.TYPE_CHECKING`, whose import would be most of the time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .avatar import Avatar as Avatar
    from .pipeline_avatar import AvatarPipeline as AvatarPipeline
    from .pipeline_output import AvatarPipelineOutput as AvatarPipelineOutput


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    if _HOMES[name].startswith("models."):
        # Who builds a model from a config never asks an Auto class for its name.
        import_module(".registration", __name__).register_with_transformers()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
