# SPDX-License-Identifier: Apache-2.0
"""What a step needs besides the model, brought to the device that the model is on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Value = TypeVar("Value")
Module = TypeVar("Module", bound=nn.Module)


def map_tensors(value: Value, change: Callable[[Tensor], Tensor]) -> Value:
    """The same value with every tensor changed, in records, lists, tuples and mappings as well."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: map_tensors(item, change) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return replace(value, **{name: map_tensors(part, change) for name, part in parts.items()})
    return value


def move(value: Value, device: torch.device) -> Value:
    """The value on a device; copies from pinned memory run beside the computation."""
    return map_tensors(value, partial(_move_tensor, device=device))


def _move_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


class Parts:
    """The parts of a step's batch, as a loader hands them over; pins what lies in them."""

    def __init__(self, parts: list) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def pin_memory(self) -> Parts:
        """The same in memory that a CUDA device reads by itself; loaders call it."""
        return Parts(map_tensors(self.parts, Tensor.pin_memory))


class Companion(Generic[Module]):
    """A module that nobody trains, copied to where it is needed.

    It is no part of the module that is trained: checkpoints need not hold it, nor processes compare
    it. The original stays where it is, for the loaders.

    Args:
        module: A rig, or a network that compares pictures.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.copies: dict[torch.device, Module] = {}

    def on(self, device: torch.device) -> Module:
        """The module on that device."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        if not tensors or tensors[0].device == device:
            return self.module
        if device not in self.copies:
            self.copies[device] = copy.deepcopy(self.module).to(device)
        return self.copies[device]
