# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of a .pth or .ckpt file without running anything that is in it.

Networks of others come as checkpoints of torch, which are pickles beside raw numbers: in a zip, or,
before torch 1.6, one after the other. The pickle may name nothing but tensors and dictionaries, and
gets inert records in their place; tensors are cut out of the numbers afterwards, within their
bounds. What Lightning leaves beside the weights may be named too, if asked for: none of it is made.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_TYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
}
Storages = dict[str, np.ndarray]


class Table(dict):
    """A dictionary whose attributes, such as the versions of modules, are left out."""

    def __setstate__(self, state: object) -> None:
        pass


class Nothing:
    """Whatever a pickle names that is no tensor: it takes all that is done to it, and does none."""

    def __new__(cls, *_: object, **__: object) -> Nothing:
        """An object without content."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> Nothing:
        """What a function would return."""
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """As of a list."""

    def extend(self, values: object) -> None:
        """As of a list."""

    def add(self, value: object) -> None:
        """As of a set."""


@dataclass(frozen=True)
class StorageRecord:
    """Numbers that lie elsewhere in the file."""

    dtype: type
    key: str
    count: int


@dataclass(frozen=True)
class TensorRecord:
    """A view of such numbers."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def cut(self, storages: Storages) -> Tensor:
        """The tensor.

        Raises:
            ValueError: It reaches beyond its numbers.
        """
        numbers = storages[self.storage.key]
        spans = zip(self.size, self.stride, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in spans)
        is_empty = 0 in self.size
        if min(self.offset, 0, *self.size, *self.stride) < 0:
            raise ValueError("a tensor has a negative size")
        if not is_empty and last >= len(numbers):
            raise ValueError("a tensor reaches beyond its numbers")
        view = torch.from_numpy(numbers).as_strided(self.size, self.stride, self.offset)
        return view.clone()


class _MakeTensor:
    """`torch._utils._rebuild_tensor_v2`; without attributes that a pickle could set."""

    __slots__ = ()

    def __call__(
        self, storage: StorageRecord | Nothing, offset: int, size: tuple, stride: tuple, *_: object
    ) -> TensorRecord | Nothing:
        if isinstance(storage, Nothing):
            return storage
        return TensorRecord(storage, offset, tuple(size), tuple(stride))


class _TakeFirst:
    """`torch._utils._rebuild_parameter`: the tensor of a parameter."""

    __slots__ = ()

    def __call__(self, data: TensorRecord, *_: object) -> TensorRecord:
        return data


KNOWN_NAMES: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): Table,
    ("torch._utils", "_rebuild_tensor_v2"): _MakeTensor(),
    ("torch._utils", "_rebuild_parameter"): _TakeFirst(),
}


class _TensorUnpickler(pickle.Unpickler):
    allow_others = False

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        if (module, name) not in KNOWN_NAMES and self.allow_others:
            return Nothing
        if (module, name) not in KNOWN_NAMES:
            raise ValueError(f"it names {module}.{name}, which has no place in a checkpoint")
        return KNOWN_NAMES[module, name]

    def persistent_load(self, pid: tuple) -> StorageRecord | Nothing:
        kind, dtype, key, _, count, *_ = pid
        if kind == "storage" and dtype is Nothing:
            return Nothing()
        if kind != "storage" or dtype not in STORAGE_TYPES.values():
            raise ValueError(f"it refers to {kind!r}")
        return StorageRecord(dtype, str(key), int(count))


def read_checkpoint(path: str | Path, *, allow_others: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    Args:
        path: A file that holds a dictionary of tensors, or a dictionary with one under
            "model_state_dict" or "state_dict".
        allow_others: Whether other objects may be named, as in files of Lightning. They are left.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a checkpoint, and there is no file at {path}.")
    try:
        if zipfile.is_zipfile(path):
            table, storages = _read_zip(path, allow_others)
        else:
            table, storages = _read_stream(path, allow_others)
        for name in ("model_state_dict", "state_dict"):
            table = table.get(name, table)
        records = {k: v for k, v in table.items() if isinstance(v, TensorRecord)}
        return {name: record.cut(storages) for name, record in records.items()}
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, ValueError, TypeError, AttributeError, EOFError,
        IndexError, KeyError, OverflowError, RuntimeError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"`path` must be a checkpoint with nothing but tensors, and {path} is refused: {error}."
        ) from error


def _read_zip(path: Path, allow_others: bool) -> tuple[Table, Storages]:
    with zipfile.ZipFile(path) as archive:
        pickled = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
        if pickled is None:
            raise ValueError("it is a zip without data.pkl")
        reader = _StorageCollector(io.BytesIO(archive.read(pickled)), allow_others=allow_others)
        table = reader.load()
        folder = pickled.removesuffix("data.pkl") + "data/"
        storages = {
            key: np.frombuffer(archive.read(folder + key), record.dtype).copy()
            for key, record in reader.found.items()
        }
    return table, storages


def _read_stream(path: Path, allow_others: bool) -> tuple[Table, Storages]:
    with path.open("rb") as file:
        if _TensorUnpickler(file).load() != MAGIC:
            raise ValueError("it does not begin as a checkpoint does")
        for _ in ("protocol", "system"):
            _TensorUnpickler(file).load()
        reader = _StorageCollector(file, allow_others=allow_others)
        table = reader.load()
        keys = _TensorUnpickler(file).load()
        storages = {}
        for key in keys:
            record = reader.found[key]
            count = int.from_bytes(file.read(8), "little")
            if count != record.count:
                raise ValueError(f"a list of {count} numbers should have {record.count}")
            raw = file.read(count * np.dtype(record.dtype).itemsize)
            storages[key] = np.frombuffer(raw, record.dtype, count).copy()
    return table, storages


class _StorageCollector(_TensorUnpickler):
    """Notes which numbers a pickle refers to."""

    def __init__(self, file: object, *, allow_others: bool = False) -> None:
        super().__init__(file, encoding="latin1")
        self.allow_others = allow_others
        self.found: dict[str, StorageRecord] = {}

    def persistent_load(self, pid: tuple) -> StorageRecord | Nothing:
        record = super().persistent_load(pid)
        if isinstance(record, Nothing):
            return record
        return self.found.setdefault(record.key, record)
