# SPDX-License-Identifier: Apache-2.0
"""Michelangelo's point-cloud encoder in this package's words (paper Sec. 4.1).

Its checkpoint packs queries, keys and values of a head side by side, head after head; here each of
them is a projection of its own. Of the file, only the encoder is taken. Its weights stand under
GPL-3.0, or under no terms that are known: they are yours to use, and not this package's to pass on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..models.configuration_conditioner import MICHELANGELO, PointCloudEncoderConfig
from ..models.modeling_conditioner import PointCloudEncoder
from .torch_checkpoint import read_checkpoint

HEAD_SIZE = 64
# By it the encoder is found, wherever it lies in the file.
MARK = "encoder.query"
WHERE = "https://huggingface.co/Maikou/Michelangelo, checkpoints/aligned_shape_latents"
# Names in the file and here; of a block, after its own name.
CROSS = {
    "attn.c_proj": "attention.o_proj", "ln_1": "query_norm", "ln_2": "context_norm",
    "ln_3": "mlp_norm", "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2",
}  # fmt: skip
SELF = {
    "attn.c_proj": "attention.o_proj", "ln_1": "attention_norm", "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2",
}  # fmt: skip

CARD = """---
license: gpl-3.0
library_name: pointillist_hf
---

# Michelangelo's point-cloud encoder

Converted from `{name}` (SHA-256 `{sha256}`) of the project Michelangelo, trained on Objaverse and
ShapeNet. No terms are known for its weights but those of its code, GPL-3.0. Keep this folder to
yourself.
"""


def convert_michelangelo(path: str | Path, output: str | Path) -> PointCloudEncoder:
    """Writes the encoder of a checkpoint as a folder for `PointCloudEncoder.from_pretrained`.

    Args:
        path: shapevae-256.ckpt.
        output: Folder to write; must not hold anything yet.

    Raises:
        FileNotFoundError: There is no such file.
        FileExistsError: There is something in that place.
        ValueError: It is damaged, hostile, or no checkpoint of Michelangelo.
    """
    path, output = Path(path), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"`output` must be a new or empty folder, and {output} is none.")
    encoder = read_michelangelo(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    encoder.save_pretrained(partial)
    (partial / "README.md").write_text(CARD.format(name=path.name, sha256=sha256), "utf-8")
    if output.exists():
        output.rmdir()
    partial.replace(output)
    return encoder


def read_michelangelo(path: str | Path) -> PointCloudEncoder:
    """The encoder in a checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, hostile, or no checkpoint of Michelangelo.
    """
    tensors = read_checkpoint(path, allow_others=True)
    prefix = next((n.removesuffix("query") for n in tensors if f".{n}".endswith(f".{MARK}")), None)
    if prefix is None:
        raise ValueError(
            f"`path` must be Michelangelo's shapevae-256.ckpt ({WHERE}), and {path} has no "
            f"`{MARK}`."
        )
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    try:
        config = _describe(found)
        encoder = PointCloudEncoder(config)
        encoder.load_state_dict(_rename(found, config.num_hidden_layers))
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"`path` must be a whole checkpoint of Michelangelo, and {path} is none: "
            f"{' '.join(str(error).split())}"
        ) from error
    return encoder.eval()


def _describe(found: Mapping[str, Tensor]) -> PointCloudEncoderConfig:
    num_latents, size = found["query"].shape
    blocks = {n.split(".")[2] for n in found if n.startswith("self_attn.resblocks.")}
    # Coordinates and normals, and a sine and a cosine of each coordinate for each octave.
    num_frequencies = (found["input_proj.weight"].shape[1] - 6) // 6
    return PointCloudEncoderConfig(
        hidden_size=size,
        num_hidden_layers=len(blocks),
        num_attention_heads=size // HEAD_SIZE,
        num_latents=num_latents,
        num_frequencies=num_frequencies,
        origin=MICHELANGELO,
    )


def _rename(found: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The weights by their names here."""
    state = {
        "latents.weight": found["query"],
        "cross_block.attention.q_proj.weight": found["cross_attn.attn.c_q.weight"],
        **_unpack(found["cross_attn.attn.c_kv.weight"], "cross_block.attention", "kv"),
    }
    pairs = {"input_proj": "input_proj", "ln_post": "norm"}
    pairs |= {f"cross_attn.{old}": f"cross_block.{new}" for old, new in CROSS.items()}
    for layer in range(num_layers):
        theirs, ours = f"self_attn.resblocks.{layer}", f"blocks.{layer}"
        state |= _unpack(found[f"{theirs}.attn.c_qkv.weight"], f"{ours}.attention", "qkv")
        pairs |= {f"{theirs}.{old}": f"{ours}.{new}" for old, new in SELF.items()}
    for old, new in pairs.items():
        state |= {f"{new}.{part}": found[f"{old}.{part}"] for part in ("weight", "bias")}
    return {name: tensor.to(torch.float32) for name, tensor in state.items()}


def _unpack(packed: Tensor, name: str, kinds: str) -> dict[str, Tensor]:
    """Projections out of one matrix: of each head the rows of one kind, then of the next."""
    heads = packed.unflatten(0, (-1, len(kinds), HEAD_SIZE))  # [heads, kinds, 64, C]
    return {f"{name}.{kind}_proj.weight": heads[:, i].flatten(0, 1) for i, kind in enumerate(kinds)}
