# SPDX-License-Identifier: Apache-2.0
"""Reads the pickles of FLAME without running anything that is in them.

A pickle is a program that may call whatever it can name. This reader lets it name a dozen classes
and hands it inert records in their place, so that nothing of numpy, scipy or chumpy is made while
the program runs. Arrays are built afterwards, from records whose sizes have been checked against
the bytes that are there.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

MAX_FILE_SIZE = 2**30  # bytes; FLAME 2023 has 0.1 GiB
MAX_DEPTH = 8  # of arrays inside of arrays; chumpy's selections nest once
MAX_DENSE_SIZE = 2**24  # elements of a sparse matrix; the joint regressor has 25,115


class Record:
    """What a pickle says about an object: the arguments it is made with, and its state."""

    def __new__(cls, *args: object) -> Record:
        """Keeps the arguments, whatever they are; pickle calls this, or the class itself."""
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class ArrayRecord(Record):
    """numpy.ndarray."""


class BufferRecord(Record):
    """An array in the manner of pickle's protocol 5."""


class DtypeRecord(Record):
    """numpy.dtype."""


class ScalarRecord(Record):
    """A numpy scalar."""


class SparseRecord(Record):
    """scipy.sparse.csc_matrix."""


class ObjectRecord(Record):
    """Python's object."""


class SetRecord(Record):
    """A set; chumpy notes in one which of an object's values changed."""


class ChumpyRecord(Record):
    """An object of chumpy, the autograd library that FLAME was fitted with."""

    class_name = ""


def _make_array(kind: type, *_: object) -> Record:
    return _make_object(kind)


def _make_object(kind: type, *_: object) -> Record:
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise ValueError(f"it builds an object of {kind!r}")
    return kind()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


KNOWN_NAMES: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): ArrayRecord,
    ("numpy", "dtype"): DtypeRecord,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    KNOWN_NAMES[_module, "_reconstruct"] = _make_array
    KNOWN_NAMES[_module, "scalar"] = ScalarRecord
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    KNOWN_NAMES[_module, "_frombuffer"] = BufferRecord
for _module in ("scipy.sparse", "scipy.sparse.csc", "scipy.sparse._csc"):
    KNOWN_NAMES[_module, "csc_matrix"] = SparseRecord
for _module in ("copy_reg", "copyreg"):  # Python 2's name first
    KNOWN_NAMES[_module, "_reconstructor"] = _make_object
for _module in ("__builtin__", "builtins"):
    KNOWN_NAMES[_module, "object"] = ObjectRecord
    KNOWN_NAMES[_module, "set"] = SetRecord


class _RecordUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable:
        if module.split(".")[0] == "chumpy":
            return type(name, (ChumpyRecord,), {"class_name": f"{module}.{name}"})
        if (module, name) not in KNOWN_NAMES:
            raise ValueError(f"it names {module}.{name}, which has no place in such a file")
        return KNOWN_NAMES[module, name]


def load_records(data: bytes, source: str | Path) -> object:
    """What a pickle holds, with records in the place of objects. `decode_value` makes them arrays.

    Args:
        data: The pickle.
        source: Its name in messages.

    Raises:
        ValueError: The pickle is damaged, or asks for anything but arrays.
    """
    if len(data) > MAX_FILE_SIZE:
        raise ValueError(
            f"{source} must be smaller than {MAX_FILE_SIZE} bytes, got {len(data)}: "
            "this is no FLAME file."
        )
    try:
        _check_memory(data)
        return _RecordUnpickler(io.BytesIO(data), encoding="latin1").load()
    except MemoryError as error:
        raise ValueError(f"{source} is refused: it asks for too much memory.") from error
    except RecursionError as error:
        raise ValueError(f"{source} is refused: it is nested too deeply.") from error
    # A program that is cut off or bent can fail in any of these ways; none of them is ours.
    except (
        pickle.UnpicklingError, ValueError, TypeError, AttributeError, EOFError, IndexError,
        KeyError, OverflowError, ImportError,
    ) as error:  # fmt: skip
        reason = str(error) or "it ends too early"
        raise ValueError(
            f"{source} is refused as a pickle of FLAME: {reason}. Download the file again from "
            "the official page."
        ) from error


def _check_memory(data: bytes) -> None:
    """Refuses memo places far beyond the program's length: the unpickler would allocate them."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > count:
            raise ValueError(f"it writes to place {argument} of a memory of {count}")


# From records to values ---------------------------------------------------------------------------


def decode_value(value: object, *, depth: int = 0) -> object:
    """Arrays of records, dictionaries and lists; other values as they are.

    Raises:
        ValueError: A record is inconsistent or of a class that holds no array.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"it nests arrays more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        return {str(k): decode_value(v, depth=depth + 1) for k, v in value.items()}
    if isinstance(value, ArrayRecord):
        return _decode_array(value, depth)
    if isinstance(value, BufferRecord):
        raw, dtype, shape, order = _arguments(value, 4)
        return _from_bytes(raw, _decode_dtype(dtype), shape, order=order)
    if isinstance(value, ScalarRecord):
        dtype, raw = _arguments(value, 2)
        return _from_bytes(raw, _decode_dtype(dtype), ())[()]
    if isinstance(value, SparseRecord):
        return _decode_sparse(value, depth)
    if isinstance(value, ChumpyRecord):
        return _decode_chumpy(value, depth)
    if isinstance(value, Record):
        raise ValueError(f"it holds an object of {type(value).__name__}")
    return value


def _arguments(record: Record, count: int) -> tuple:
    if len(record.args) != count:
        raise ValueError(f"it makes a value of {len(record.args)} parts instead of {count}")
    return record.args


def _state_of(record: Record, *names: str) -> list:
    """Entries of the record's state, which must be a dictionary."""
    state = record.state if isinstance(record.state, dict) else {}
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"an object in it lacks {', '.join(missing)}")
    return [state[name] for name in names]


def _decode_array(record: ArrayRecord, depth: int) -> object:
    if not isinstance(record.state, tuple) or len(record.state) != 5:
        raise ValueError("it holds an array without content")
    _, shape, dtype, is_fortran, raw = record.state
    if isinstance(raw, list):  # dtype object: numpy wraps a dictionary in an array of shape ()
        if len(raw) != 1:
            raise ValueError("it holds an array of several objects")
        return decode_value(raw[0], depth=depth + 1)
    return _from_bytes(raw, _decode_dtype(dtype), shape, order="F" if is_fortran else "C")


def _decode_dtype(record: object) -> np.dtype:
    name = record.args[0] if isinstance(record, DtypeRecord) and record.args else None
    if not isinstance(name, str) or not re.fullmatch("[fiu][1248]|b1", name):
        raise ValueError(f"it holds an array of type {name!r}, not of numbers")
    big_endian = isinstance(record.state, tuple) and len(record.state) > 1 and record.state[1]
    return np.dtype(name).newbyteorder(">" if big_endian == ">" else "<")


def _from_bytes(raw: object, dtype: np.dtype, shape: object, order: str = "C") -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    raw = bytes(raw) if isinstance(raw, bytearray) else raw
    sizes_are_numbers = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(raw, bytes) or not sizes_are_numbers or order not in ("C", "F"):
        raise ValueError("it holds an array without a shape or without bytes")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(
            f"it holds an array of shape {shape} and type {dtype.name} in {len(raw)} bytes"
        )
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _decode_sparse(record: SparseRecord, depth: int) -> np.ndarray:
    entries = _state_of(record, "data", "indices", "indptr", "_shape")
    data, indices, starts = (decode_value(entry, depth=depth + 1) for entry in entries[:3])
    shape = entries[3]
    if not isinstance(shape, tuple) or len(shape) != 2 or math.prod(shape) > MAX_DENSE_SIZE:
        raise ValueError(f"it holds a sparse matrix of shape {shape}")
    counts = np.diff(starts)
    if len(counts) != shape[1] or (counts < 0).any() or counts.sum() != len(data):
        raise ValueError("it holds a sparse matrix whose columns do not fit its values")
    dense = np.zeros(shape, np.float64)
    columns = np.repeat(np.arange(shape[1]), counts)
    if len(indices) and (indices.min() < 0 or indices.max() >= shape[0]):
        raise ValueError("it holds a sparse matrix with rows out of range")
    np.add.at(dense, (indices, columns), data)
    return dense


def _decode_chumpy(record: ChumpyRecord, depth: int) -> np.ndarray:
    """Plain arrays, and selections of elements from others."""
    if record.class_name == "chumpy.ch.Ch":
        return decode_value(_state_of(record, "x")[0], depth=depth + 1)
    if record.class_name == "chumpy.reordering.Select":
        source, places = (
            decode_value(entry, depth=depth + 1) for entry in _state_of(record, "a", "idxs")
        )
        source, places = np.ravel(source), np.asarray(places)
        if places.dtype.kind not in "iu" or (
            places.size and (places.min() < 0 or places.max() >= source.size)
        ):
            raise ValueError("it selects elements that an array does not have")
        shape = record.state.get("preferred_shape")
        return source[places] if shape is None else source[places].reshape(shape)
    raise ValueError(f"it holds an object of {record.class_name}, which is no plain array")
