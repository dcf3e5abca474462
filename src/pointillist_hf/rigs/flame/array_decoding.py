# SPDX-License-Identifier: Apache-2.0
"""Arrays of what a pickle said about them, after its sizes have been checked.

Every number in a record is the file's word and no more: a shape must fit the bytes that are there,
an index must fit what it points into, before numpy gets to see it.
"""

from __future__ import annotations

import math
import re

import numpy as np

from .restricted_pickle import (
    ArrayRecord,
    BufferRecord,
    ChumpyRecord,
    DtypeRecord,
    Record,
    ScalarRecord,
    SparseRecord,
)

MAX_DEPTH = 8  # of arrays inside of arrays; chumpy's selections nest once
MAX_DENSE_SIZE = 2**24  # elements of a sparse matrix; the joint regressor has 25,115
NUMBERS = re.compile("f[248]|[iu][1248]|b1")  # numpy's names of types


def decode_array(value: object, *, depth: int = 0) -> np.ndarray:
    """The array that a record, or a plain array, stands for.

    Raises:
        ValueError: It is something else, or inconsistent.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"it nests arrays more than {MAX_DEPTH} levels deep")
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, ArrayRecord):
        _, shape, dtype, is_fortran, raw = _array_state(value)
        return _from_bytes(raw, _decode_dtype(dtype), shape, order="F" if is_fortran else "C")
    if isinstance(value, BufferRecord):
        raw, dtype, shape, order = _arguments(value, 4)
        return _from_bytes(raw, _decode_dtype(dtype), shape, order=order)
    if isinstance(value, ScalarRecord):
        dtype, raw = _arguments(value, 2)
        return _from_bytes(raw, _decode_dtype(dtype), ())
    if isinstance(value, SparseRecord):
        return _decode_sparse(value, depth)
    if isinstance(value, ChumpyRecord):
        return _decode_chumpy(value, depth)
    raise ValueError(f"it holds {_kind_of(value)} where an array belongs")


def unwrap_dictionary(value: object) -> dict[str, object]:
    """The dictionary that a file holds, or an array of type object around it; values untouched.

    Raises:
        ValueError: There is no dictionary.
    """
    if isinstance(value, ArrayRecord):
        raw = _array_state(value)[4]
        if not isinstance(raw, list) or len(raw) != 1:
            raise ValueError("it holds an array where a dictionary belongs")
        value = raw[0]
    if not isinstance(value, dict):
        raise ValueError(f"it holds {_kind_of(value)} where a dictionary belongs")
    return {str(name): entry for name, entry in value.items()}


def _kind_of(value: object) -> str:
    return f"an object of type {type(value).__name__}"


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


def _array_state(record: ArrayRecord) -> tuple:
    if not isinstance(record.state, tuple) or len(record.state) != 5:
        raise ValueError("it holds an array without content")
    return record.state


def _decode_dtype(record: object) -> np.dtype:
    name = record.args[0] if isinstance(record, DtypeRecord) and record.args else None
    if not isinstance(name, str) or not NUMBERS.fullmatch(name):
        raise ValueError(f"it holds an array of type {name!r}, not of numbers")
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "<"
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)


def _from_bytes(raw: object, dtype: np.dtype, shape: object, order: object = "C") -> np.ndarray:
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(raw, (bytes, bytearray)) or not _is_shape(shape) or order not in ("C", "F"):
        raise ValueError("it holds an array without a shape or without bytes")
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(
            f"it holds an array of shape {shape} and type {dtype.name} in {len(raw)} bytes"
        )
    return np.frombuffer(bytes(raw), dtype).reshape(shape, order=order)


def _decode_row(value: object, kinds: str, name: str, depth: int) -> np.ndarray:
    array = decode_array(value, depth=depth + 1)
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise ValueError(f"`{name}` in it must be a row of numbers of kind {kinds!r}")
    return array


def _decode_sparse(record: SparseRecord, depth: int) -> np.ndarray:
    """A matrix given column by column."""
    *rows, shape = _state_of(record, "data", "indices", "indptr", "_shape")
    data = _decode_row(rows[0], "fiu", "data", depth)
    indices = _decode_row(rows[1], "iu", "indices", depth)
    starts = _decode_row(rows[2], "iu", "indptr", depth)
    if not _is_shape(shape) or len(shape) != 2 or math.prod(shape) > MAX_DENSE_SIZE:
        raise ValueError(f"it holds a sparse matrix of shape {shape}")
    # Compared, not subtracted: differences of hostile numbers wrap around.
    is_ascending = len(starts) == shape[1] + 1 and bool((starts[1:] >= starts[:-1]).all())
    if not is_ascending or starts[0] != 0 or starts[-1] != len(data) or len(indices) != len(data):
        raise ValueError("it holds a sparse matrix whose columns do not fit its values")
    if len(indices) and (indices.min() < 0 or indices.max() >= shape[0]):
        raise ValueError("it holds a sparse matrix with rows out of range")
    dense = np.zeros(shape, np.float64)
    columns = np.repeat(np.arange(shape[1]), np.diff(starts.astype(np.int64)))
    np.add.at(dense, (indices, columns), data)
    return dense


def _decode_chumpy(record: ChumpyRecord, depth: int) -> np.ndarray:
    """Plain arrays, and selections of elements from others."""
    if record.class_name == "chumpy.ch.Ch":
        return decode_array(_state_of(record, "x")[0], depth=depth + 1)
    if record.class_name != "chumpy.reordering.Select":
        raise ValueError(f"it holds an object of {record.class_name}, which is no plain array")
    selected, places = _state_of(record, "a", "idxs")
    source = np.ravel(decode_array(selected, depth=depth + 1))
    places = decode_array(places, depth=depth + 1)
    if places.dtype.kind not in "iu" or (
        places.size and (places.min() < 0 or places.max() >= source.size)
    ):
        raise ValueError("it selects elements that an array does not have")
    shape = record.state.get("preferred_shape", places.shape)
    if not _is_shape(shape) or math.prod(shape) != places.size:
        raise ValueError(f"it selects {places.size} elements in the shape {shape}")
    return source[places].reshape(shape)
