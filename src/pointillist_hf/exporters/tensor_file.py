# SPDX-License-Identifier: Apache-2.0
"""Tensors in .safetensors files, with the library's errors as those of files and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .atomic_file import write_atomically

POINTER_START = b"version https://git-lfs.github.com/spec/"


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors, whatever they share or skip in memory.

    Raises:
        OSError: The file cannot be written.
    """
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def save(partial: Path) -> None:
        with file_errors(path):
            save_file(own, partial, metadata=None if metadata is None else dict(metadata))

    write_atomically(path, save)


@contextmanager
def file_errors(path: str | Path) -> Iterator[None]:
    """Makes what safetensors raises when it writes, a full disk for instance, an OSError."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"`path` could not be written: {path}: {error}. Is the disk full?") from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, cut off, or a Git LFS pointer.
    """
    with _reading(path):
        return load_file(path)


def read_tensor_names(path: str | Path) -> set[str]:
    """The names of the tensors of a file; the same errors as `read_tensors`."""
    with _reading(path), safe_open(path, "pt") as file:
        return set(file.keys())


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    refuse_pointer(Path(path))
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"`path` must be a whole .safetensors file, and {path} is damaged or cut off "
            f"({error}); fetch or save it again."
        ) from error


def refuse_pointer(path: Path) -> None:
    """Refuses what Git leaves in place of a large file that was not fetched.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is a pointer.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a file, and there is none at {path}.")
    with path.open("rb") as file:
        if file.read(len(POINTER_START)) == POINTER_START:
            raise ValueError(
                f"`path` must be the file itself, and {path} is a Git LFS pointer to it; fetch it "
                "with `git lfs pull`."
            )
