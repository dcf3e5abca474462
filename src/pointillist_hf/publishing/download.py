# SPDX-License-Identifier: Apache-2.0
"""Folders from the Hub, for what diffusers and transformers do not fetch themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from .upload import REPO_ID, was_cut

AVATAR_PATTERNS = ("avatar.json", "avatar.safetensors", "rig/*", "licences.json")


def fetch_folder(
    name: str | Path,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
    repo_type: str | None = None,
) -> Path:
    """The folder of that name, or the files of that repository; a folder goes before.

    An interrupted download is taken up again where it stopped, and a folder is only returned
    whole.

    Raises:
        FileNotFoundError: There is neither, or no way to it.
        OSError: The Hub refused it.
    """
    if Path(name).exists() or not REPO_ID.fullmatch(str(name)):
        return Path(name)
    try:
        return Path(
            snapshot_download(
                str(name),
                allow_patterns=list(patterns),
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                token=token,
                repo_type=repo_type,
            )
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise FileNotFoundError(explain_absence(str(name))) from error
    except HfHubHTTPError as error:
        status = None if error.response is None else error.response.status_code
        raise OSError(
            f"`{name}` is no folder here, and the Hub answered {status} "
            f"({error.server_message or 'without a word'}); check the name, and for a private "
            "repository log in with `hf auth login`."
        ) from error
    except Exception as error:
        if not was_cut(error):
            raise
        raise OSError(
            f"`{name}` was not fetched: the connection was lost ({error}); call again, what has "
            "arrived is kept."
        ) from error


def explain_absence(name: str) -> str:
    """What to do about a repository that is neither here nor can be fetched."""
    return (
        f"`{name}` is no folder here, not in the cache of the Hub, and cannot be fetched. Call "
        "again with a network (and HF_HUB_OFFLINE unset), or name a folder that holds it."
    )


def fetch_beside(folder: Path, repo_id: str, path: str, **options: object) -> None:
    """Fetches one more file into a snapshot, if the repository has it.

    Args:
        folder: The snapshot, whose name is the commit.
        repo_id: Where it comes from.
        path: Of the file.
        **options: Of `hf_hub_download`.
    """
    if (folder / path).is_file():
        return
    try:
        hf_hub_download(repo_id, path, revision=folder.name, **options)
    except (EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled):
        return
