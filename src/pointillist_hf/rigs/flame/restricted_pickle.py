# SPDX-License-Identifier: Apache-2.0
"""Reads the pickles of FLAME without running anything that is in them.

A pickle is a program that may call whatever it can name. This reader lets it name a dozen classes
and hands it inert records in their place, so that nothing of numpy, scipy or chumpy is made while
the program runs. `array_decoding` makes arrays of the records afterwards.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path

MAX_FILE_SIZE = 2**30  # bytes; FLAME 2023 has 0.1 GiB


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


class MakeObject:
    """What numpy's and Python 2's rebuilding functions come to: an empty record of a class.

    Functions that a pickle may name are objects without attributes, because a pickle can set
    attributes of what it has named.
    """

    __slots__ = ()

    def __call__(self, kind: type, *_: object) -> Record:
        """An object of the class, which must be one of ours."""
        if not (isinstance(kind, type) and issubclass(kind, Record)):
            raise ValueError(f"it builds an object of {kind!r}")
        return kind()


class EncodeLatin:
    """The part of `codecs.encode` by which newer pickles write bytes in old protocols."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        """Bytes of a text in latin1."""
        if encoding != "latin1":
            raise ValueError(f"it encodes text as {encoding!r}")
        return text.encode("latin1")


KNOWN_NAMES: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): ArrayRecord,
    ("numpy", "dtype"): DtypeRecord,
    ("_codecs", "encode"): EncodeLatin(),
    ("collections", "OrderedDict"): dict,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    KNOWN_NAMES[_module, "_reconstruct"] = MakeObject()
    KNOWN_NAMES[_module, "scalar"] = ScalarRecord
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    KNOWN_NAMES[_module, "_frombuffer"] = BufferRecord
for _module in ("scipy.sparse", "scipy.sparse.csc", "scipy.sparse._csc"):
    KNOWN_NAMES[_module, "csc_matrix"] = SparseRecord
for _module in ("copy_reg", "copyreg"):  # Python 2's name first
    KNOWN_NAMES[_module, "_reconstructor"] = MakeObject()
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
    """What a pickle holds, with records in the place of objects.

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
        with warnings.catch_warnings():
            # Python warns of escapes that it does not know; only damage writes such.
            warnings.simplefilter("error")
            _check_memory(data)
            return _RecordUnpickler(io.BytesIO(data), encoding="latin1").load()
    except MemoryError as error:
        raise ValueError(f"{source} is refused: it asks for too much memory.") from error
    except RecursionError as error:
        raise ValueError(f"{source} is refused: it is nested too deeply.") from error
    # A program that is cut off or bent can fail in any of these ways; none of them is ours.
    except (
        pickle.UnpicklingError, ValueError, TypeError, AttributeError, EOFError, IndexError,
        KeyError, OverflowError, ImportError, Warning,
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
