# SPDX-License-Identifier: Apache-2.0
"""A digest of weights that stays the same when they are saved in another precision or in shards.

Values count as bfloat16 holds them: what was stored in bfloat16 keeps its digest when it is loaded
and saved in float32, and the other way round. Trained on, weights get another one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open

TENSORS_SUFFIX, NETWORK_SUFFIX = ".safetensors", ".tflite"


def fingerprint_part(folder: Path) -> str | None:
    """The digest of all weights in a folder; None if there are none."""
    digest = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    networks = [path for path in files if path.suffix == NETWORK_SUFFIX]
    places = {}
    for path in files:
        if path.suffix == TENSORS_SUFFIX:
            with safe_open(path, "pt") as file:
                places |= dict.fromkeys(file.keys(), path)
    for name in sorted(places):
        with safe_open(places[name], "pt") as file:
            _add_tensor(digest, name, file.get_tensor(name))
    for path in networks:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest() if places or networks else None


def _add_tensor(digest: hashlib._Hash, name: str, tensor: torch.Tensor) -> None:
    if tensor.is_floating_point():
        tensor = tensor.to(torch.bfloat16).view(torch.int16)
    digest.update(f"{name} {tuple(tensor.shape)}".encode())
    digest.update(tensor.contiguous().numpy().tobytes())
