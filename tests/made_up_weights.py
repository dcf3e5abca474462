# SPDX-License-Identifier: Apache-2.0
"""Random weights in the layouts of those that a group downloads: DINOv2, Michelangelo, LPIPS."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
)

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
# As on the Hub: pretrained at 518 pixels; everybody resizes to 256 and crops 224.
DINOV2 = {"patch_size": 14, "image_size": 518, "layerscale_value": 1.0}
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# LPIPS stands on the convolutions of AlexNet: (name, outputs, inputs, side).
ALEXNET = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))


def build_image_encoder(kind: str, seed: int = 0) -> PreTrainedModel:
    """A tiny one of "dinov2", "dinov2_with_registers" or "dinov3_vit"."""
    torch.manual_seed(seed)
    if kind == "dinov2":
        return Dinov2Model(Dinov2Config(**SIZES, **DINOV2)).eval()
    if kind == "dinov2_with_registers":
        config = Dinov2WithRegistersConfig(**SIZES, **DINOV2, num_register_tokens=4)
        return Dinov2WithRegistersModel(config).eval()
    config = DINOv3ViTConfig(
        **SIZES, patch_size=16, image_size=224, intermediate_size=96, num_register_tokens=4
    )
    return DINOv3ViTModel(config).eval()


def write_image_encoder(
    folder: Path, kind: str = "dinov2", *, std: tuple = tuple(IMAGE_STD)
) -> None:
    """A folder as the Hub has it: configuration, weights, and what pictures must be like."""
    build_image_encoder(kind).save_pretrained(folder)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def michelangelo_state(
    size: int = 768, layers: int = 8, latents: int = 257, seed: int = 0
) -> dict[str, Tensor]:
    """Weights of the encoder by their names in shapevae-256.ckpt, and one that has to be left."""
    stream = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=stream) / max(1, shape[-1]) ** 0.5

    def linear(name: str, outputs: int, inputs: int) -> dict[str, Tensor]:
        return {f"{name}.weight": draw(outputs, inputs), f"{name}.bias": 0.1 * draw(outputs)}

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + 0.1 * draw(size), f"{name}.bias": 0.1 * draw(size)}

    def mlp(name: str) -> dict[str, Tensor]:
        return linear(f"{name}.c_fc", 4 * size, size) | linear(f"{name}.c_proj", size, 4 * size)

    state = {"query": draw(latents, size), **linear("input_proj", size, 54)}
    state |= {
        "cross_attn.attn.c_q.weight": draw(size, size),
        "cross_attn.attn.c_kv.weight": draw(2 * size, size),
        **linear("cross_attn.attn.c_proj", size, size),
        **norm("cross_attn.ln_1"),
        **norm("cross_attn.ln_2"),
        **norm("cross_attn.ln_3"),
        **mlp("cross_attn.mlp"),
    }
    for i in range(layers):
        block = f"self_attn.resblocks.{i}"
        state |= {
            f"{block}.attn.c_qkv.weight": draw(3 * size, size),
            **linear(f"{block}.attn.c_proj", size, size),
            **norm(f"{block}.ln_1"),
            **norm(f"{block}.ln_2"),
            **mlp(f"{block}.mlp"),
        }
    state |= norm("ln_post")
    return {
        **{f"model.shape_model.encoder.{name}": value for name, value in state.items()},
        "model.shape_model.pre_kl.weight": draw(8, size),
        "model.shape_projection": draw(size, size),
    }


def write_michelangelo(path: Path, **sizes: int) -> None:
    """A Lightning file: the weights under "state_dict", beside what a training leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 3, "global_step": 7, "state_dict": michelangelo_state(**sizes)}, path)


def write_alexnet(path: Path) -> None:
    """The trunk of LPIPS in torchvision's layout, with random weights."""
    stream = torch.Generator().manual_seed(0)
    state = {}
    for number, outputs, inputs, side in ALEXNET:
        weight = torch.randn((outputs, inputs, side, side), generator=stream)
        state[f"features.{number}.weight"] = weight * (2 / (inputs * side**2)) ** 0.5
        state[f"features.{number}.bias"] = torch.zeros(outputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
