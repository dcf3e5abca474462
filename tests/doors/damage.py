# SPDX-License-Identifier: Apache-2.0
"""Ways to damage a file."""

import json

import torch
from safetensors.torch import load_file, save_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 12345\n" % 0
DEEP = b"[" * 200_000


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def edit(path, *drop, **changes):
    """Other values in a JSON object, and some left out."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if k not in drop}))


def edit_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})


def drop_tensor(path, name=None):
    edit_tensors(path, lambda t: t.pop(name or min(t)))


def add_tensor(path):
    edit_tensors(path, lambda t: t.update(more=torch.zeros(2)))


def spoil(path, name=None, value=float("nan"), place=0):
    def change(tensors):
        chosen = name or next(k for k in sorted(tensors) if tensors[k].is_floating_point())
        tensors[chosen].view(-1)[place] = value

    edit_tensors(path, change)


def convert(path, name, dtype):
    edit_tensors(path, lambda t: t.update({name: t[name].to(dtype)}))
