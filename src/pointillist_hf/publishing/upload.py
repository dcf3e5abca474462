# SPDX-License-Identifier: Apache-2.0
"""Uploads to the Hub, with its refusals in words that say what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
ADVICE = {
    401: "log in with `hf auth login`, or set HF_TOKEN to a token that may write",
    403: "use a token that may write there, or a repository of your own",
    404: "check its name and your token",
    429: "too many requests: wait some minutes and call again; what has arrived is kept",
}


class Target(Protocol):
    """The repository of a request."""

    repo_id: str
    private: bool | None
    token: str | None
    commit_message: str | None
    create_pr: bool


def check_repo_id(repo_id: str) -> None:
    """Refuses what names no repository.

    Raises:
        ValueError: It is not of the form user/name.
    """
    if not REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise ValueError(f"`repo_id` must be of the form user/name, got {repo_id!r}.")


def upload(folder: Path, repo_type: str, target: Target) -> str:
    """Sends a folder in one commit. Returns the address of the commit.

    An interrupted upload leaves the repository as it was; called again, it sends only what has not
    arrived.

    Raises:
        ValueError: The repository exists, and everybody can see it, where `private` is set.
        OSError: The Hub refused it, or was not reached.
    """
    api = HfApi(token=target.token, library_name="pointillist_hf")
    try:
        api.create_repo(target.repo_id, repo_type=repo_type, private=target.private, exist_ok=True)
        _check_privacy(api, repo_type, target)
        commit = api.upload_folder(
            repo_id=target.repo_id,
            repo_type=repo_type,
            folder_path=folder,
            commit_message=target.commit_message or "Upload with pointillist_hf",
            create_pr=target.create_pr,
            # A split has as many shards as the last upload; older ones would be read along.
            delete_patterns=["*.parquet"] if repo_type == "dataset" else None,
        )
    except HfHubHTTPError as error:
        status = None if error.response is None else error.response.status_code
        advice = ADVICE.get(status, "call again later; what has arrived is kept")
        raise OSError(
            f"{target.repo_id} was not written: the Hub answered {status} "
            f"({error.server_message or 'without a word'}); {advice}."
        ) from error
    except LocalTokenNotFoundError as error:
        raise OSError(f"{target.repo_id} was not written: {ADVICE[401]}.") from error
    except OfflineModeIsEnabled as error:
        raise OSError(
            f"{target.repo_id} was not written: HF_HUB_OFFLINE is set; unset it to upload."
        ) from error
    except Exception as error:
        if not was_cut(error):
            raise
        raise OSError(
            f"{target.repo_id} was not written: the connection was lost "
            f"({error.__cause__ or error}); call again, what has arrived is kept."
        ) from error
    return str(commit.commit_url)


def was_cut(error: BaseException | None) -> bool:
    """Whether an error of the client means that the connection was lost."""
    while error is not None:
        # The client has renamed the library that it speaks with, and exports none of its errors.
        modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
        if isinstance(error, OSError) or any(name.startswith("httpx") for name in modules):
            return True
        error = error.__cause__
    return False


def _check_privacy(api: HfApi, repo_type: str, target: Target) -> None:
    """`create_repo` leaves a repository as it is if it is there."""
    if target.private and not api.repo_info(target.repo_id, repo_type=repo_type).private:
        raise ValueError(
            f"`private` is set, and {target.repo_id} exists and is public: make it private on the "
            "Hub first, or choose another name."
        )
