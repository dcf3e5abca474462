# SPDX-License-Identifier: Apache-2.0
"""A head rig made by this package's own code, free to publish."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config

from .head_rig import FLOAT_ARRAYS, INDEX_ARRAYS, HeadRig
from .procedural.arrays import build_head_arrays


def check_resolution(resolution: str) -> None:
    """Refuses a resolution that the head does not have."""
    if resolution not in ("full", "low"):
        raise ValueError(f"`resolution` must be 'full' or 'low', got {resolution!r}.")


class ProceduralHeadRig(HeadRig):
    """The sculpted head: 53 named identity components, 45 expressions with ARKit names, 5 joints.

    Args:
        resolution: "full" has 4,882 vertices and 9,504 faces; "low" 1,932 and 3,682, for small
            binding vocabularies and tests.

    Example:
        >>> rig = ProceduralHeadRig("low")
        >>> rig(rig.neutral()).shape
        torch.Size([1, 1932, 3])
    """

    may_be_shared = True

    @register_to_config
    def __init__(self, resolution: Literal["full", "low"] = "full") -> None:
        super().__init__()
        check_resolution(resolution)
        head = build_head_arrays(resolution)
        self.shape_names = tuple(head.shape_names)
        self.expression_names = tuple(head.expression_names)
        for name in (*FLOAT_ARRAYS, *INDEX_ARRAYS):
            self.register_buffer(name, torch.as_tensor(getattr(head, name)).clone())
        self.mask_names = tuple(sorted(head.masks))
        for name in self.mask_names:
            self.register_buffer(f"mask_{name}", torch.as_tensor(head.masks[name]).clone())

    def _fix_state_dict_keys_on_load(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Makes room for the arrays of a saved rig, which an earlier sculpt may have made.

        diffusers calls this between building the rig and copying the arrays into it.
        """
        missing = sorted({*FLOAT_ARRAYS, *INDEX_ARRAYS} - state_dict.keys())
        if missing:
            raise ValueError(
                f"`{missing[0]}` must be among the arrays of a saved rig, and is not; save the rig "
                "again."
            )
        self.mask_names = tuple(name for name in self.mask_names if f"mask_{name}" in state_dict)
        for name in list(self._buffers):
            if name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[name]))
            elif name.startswith("mask_"):
                delattr(self, name)
        # Components are appended from one sculpt to the next, never reordered.
        self.shape_names = self.shape_names[: self.num_betas]
        self.expression_names = self.expression_names[: self.num_expressions]
        super()._fix_state_dict_keys_on_load(state_dict)

    def mask(self, name: str) -> torch.Tensor:
        """Vertex ids of a region.

        Raises:
            ValueError: The rig has no region of that name.
        """
        if name not in self.mask_names:
            raise ValueError(f"`{name}` is no region of this rig: {', '.join(self.mask_names)}.")
        return getattr(self, f"mask_{name}")
