# SPDX-License-Identifier: Apache-2.0
"""Networks that begin where others ended: a model goes on with more people, or with one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel


def take_over_weights(model: PreTrainedModel, folder: Path, *, new: Sequence[str] = ()) -> None:
    """Gives a network the weights of a saved one of the same shape, in place.

    Args:
        model: Whose configuration holds. Its encoders from elsewhere are its own.
        folder: Of the saved one.
        new: Parts that the saved one may lack; they stay as they are.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds a network of another kind or other sizes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`start_from` must hold a folder {folder.name}, and {folder} does not exist; name a "
            "folder of components, such as a pipeline's."
        )
    saved = type(model).from_pretrained(folder, dtype=torch.float32).state_dict()
    own = model.state_dict()
    wrong = [
        name for name, tensor in saved.items() if name not in own or own[name].shape != tensor.shape
    ]
    wrong += [name for name in own if name not in saved and name.split(".")[0] not in new]
    if wrong:
        raise ValueError(
            f"`start_from` must hold networks of the sizes of this run, and {wrong[0]} of {folder} "
            f"is none of them{_count_others(wrong)}; name the `size` that it was trained with."
        )
    model.load_state_dict(saved, strict=False)


def _count_others(names: Sequence[str]) -> str:
    return f", nor are {len(names) - 1} others" if len(names) > 1 else ""
