# SPDX-License-Identifier: Apache-2.0
"""Where the weights of others lie, and whether they are the right ones.

Nothing is downloaded. A file is taken from the path that the user gives, else from the folder of
`POINTILLIST_WEIGHTS`, else from torch's own cache of checkpoints.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "POINTILLIST_WEIGHTS"
CHUNK = 2**22  # bytes


class MissingWeightsError(FileNotFoundError):
    """The file that somebody needs is not there; `file` is its name."""

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


@dataclass(frozen=True)
class WeightsFile:
    """A published file."""

    user: str  # what needs it
    name: str
    source: str  # where it comes from, for the message
    sha256: str | None  # the whole, or its beginning; None: nobody has published it

    def find(self, path: str | Path | None = None) -> Path:
        """The file, checked.

        Args:
            path: The file, or a folder that holds it; None looks in the usual places.

        Raises:
            MissingWeightsError: It is not there.
            ValueError: It is another file.
        """
        places = _usual_folders() if path is None else [Path(path)]
        files = [place / self.name if place.is_dir() else place for place in places]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise MissingWeightsError(self._describe_absence(places), self.name)
        if self.sha256 is not None:
            checksum = file_sha256(found)
            if not checksum.startswith(self.sha256):
                raise ValueError(
                    f"`{self.name}` must have a sha256 that begins with {self.sha256}, and {found} "
                    f"has {checksum}: it is damaged or another file. It comes from {self.source}."
                )
        return found

    def describe(self, path: Path) -> dict[str, str | bool]:
        """What results say of the file that was used."""
        checksum = file_sha256(path)
        return {"file": self.name, "sha256": checksum, "checked": self.sha256 is not None}

    def _describe_absence(self, places: list[Path]) -> str:
        looked = ", ".join(str(place) for place in places) or "no folder"
        return (
            f"`{self.user}` needs {self.name}, and it is not in {looked}. Get it from "
            f"{self.source}, and name its folder by the variable {FOLDER_VARIABLE}. Nothing is "
            "downloaded."
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _usual_folders() -> list[Path]:
    named = os.environ.get(FOLDER_VARIABLE)
    torch_home = os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch")
    return [*([Path(named)] if named else []), Path(torch_home, "hub", "checkpoints")]
