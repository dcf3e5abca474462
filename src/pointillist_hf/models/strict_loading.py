# SPDX-License-Identifier: Apache-2.0
"""Loading that takes whole networks only: transformers would draw missing weights at random."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedConfig

from ..geometry.number_checks import check_integer, check_number

WEIGHTS_FILE = "model.safetensors"
FLOATS = ("F", "BF")  # how the types of floats begin
# From so many times the file's weights, and some, it is not worth while to name what is missing.
ROOM, MIN_ROOM = 4, 2**24
# Sizes in configurations, at any depth, and the largest that are not a typing mistake.
LIMITS = {
    "hidden_size": 2**16, "intermediate_size": 2**18, "num_hidden_layers": 1024,
    "num_attention_heads": 1024, "num_latents": 2**16, "num_points": 2**22, "num_frequencies": 64,
    "image_size": 2**13, "patch_size": 2**10, "num_channels": 64, "mlp_ratio": 64,
    "num_betas": 2**12, "num_expressions": 2**12, "cross_attention_size": 2**16,
    "generator_hidden_size": 2**16, "depth_hidden_size": 2**16, "depth_num_hidden_layers": 1024,
    "depth_num_attention_heads": 1024, "depth_intermediate_size": 2**18, "sliding_window": 2**24,
    "anchor_hidden_size": 2**16, "anchor_reach": 2**16, "max_points_per_face": 2**22,
    "layout_size": 64,
}  # fmt: skip
# Likewise of numbers that need not be whole: least and largest value.
RANGES = {
    "rope_theta": (1, 1e12), "rms_norm_eps": (0, 1), "layer_norm_eps": (0, 1),
    "attention_dropout": (0, 1), "attention_probs_dropout_prob": (0, 1),
    "hidden_dropout_prob": (0, 1), "drop_path_rate": (0, 1), "layerscale_value": (-1e3, 1e3),
    "max_angle": (1e-3, math.pi), "max_offset": (0, 1), "max_scale": (0, 10), "bin_size": (0, 10),
    "cube_half_extent": (0, 100),
}  # fmt: skip
# What transformers, safetensors and json raise of a folder that is no whole model.
DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, ArithmeticError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip


class StrictLoading:
    """`from_pretrained` that refuses weights which are missing, left over, misfit or not finite."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: object, **kwargs: object
    ) -> Self:
        """The model of a folder or Hub id, as transformers loads it.

        Raises:
            OSError: There is no such model.
            ValueError: Its configuration or its weights are damaged, or they do not fit together.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        source = str(pretrained_model_name_or_path)
        try:
            if not kwargs.get("config"):
                _check_folder(cls, Path(source, str(kwargs.get("subfolder") or "")))
            model, info = super().from_pretrained(source, *args, **kwargs, output_loading_info=True)
            check_loading(model, info)
        except DAMAGE as error:
            raise ValueError(
                f"`{cls.__name__}` must be loaded from a whole model, and {source} holds none: "
                f"{_explain(error)}. Save or download it again."
            ) from error
        return (model, info) if wants_info else model


def check_loading(model: nn.Module, info: Mapping[str, Collection]) -> None:
    """Refuses a model that was not loaded wholly, by transformers' report, or is not finite."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        _refuse_names(kind.removesuffix("_keys"), info.get(kind) or ())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"the weights `{name}` are not finite")


def digest_weights(model: nn.Module) -> str:
    """SHA-256 of the numbers of all weights, whatever their names are. Hexadecimal.

    Libraries rename the weights of a network from one version to the next.
    """
    digests = []
    for tensor in model.state_dict().values():
        values = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def check_sizes(config: Mapping[str, object]) -> None:
    """Refuses configurations with sizes and numbers that no network has, before it is made."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_sizes(value)
        elif name in LIMITS and value is not None:
            check_integer(name, value, 0 if name.endswith("layers") else 1, LIMITS[name])
        elif name in RANGES or isinstance(value, float):
            check_number(name, value, *RANGES.get(name, ()))


def _check_folder(cls: type[nn.Module], folder: Path) -> None:
    """Refuses a configuration that asks for far more memory than the file of weights fills."""
    if not (folder / "config.json").is_file():
        return
    values, _ = PreTrainedConfig.get_config_dict(folder)
    if not isinstance(values, Mapping):
        raise ValueError("`config.json` must hold an object")
    check_sizes(values)
    config = cls.config_class.from_pretrained(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        return
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = [one.get_shape() for one in slices.values()]
        others = [name for name, one in slices.items() if not one.get_dtype().startswith(FLOATS)]
    if others:
        raise ValueError(f"weights must be floating point, and `{others[0]}` are not")
    found = sum(math.prod(shape) for shape in shapes)
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in cls(config).parameters())
    if wanted > ROOM * found + MIN_ROOM:
        raise ValueError(
            f"`config.json` describes {wanted} weights, and {WEIGHTS_FILE} holds {found}"
        )


def _refuse_names(kind: str, names: Collection) -> None:
    names = sorted(name if isinstance(name, str) else str(name[0]) for name in names)
    if names:
        rest = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ValueError(f"{kind} weights `{names[0]}`{rest}")


def _explain(error: Exception) -> str:
    if isinstance(error, SafetensorError):
        return (
            f"{WEIGHTS_FILE} is damaged, cut off, or a Git LFS pointer (then fetch it with "
            f"`git lfs pull`): {error}"
        )
    if "ignore_mismatched_sizes" in str(error):
        return "sizes in config.json are not those of the weights"
    if isinstance(error, RecursionError):
        return "config.json is nested too deep"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
