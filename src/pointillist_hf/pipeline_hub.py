# SPDX-License-Identifier: Apache-2.0
"""Floor 6. The pipeline's ways from and to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from diffusers import DiffusionPipeline

from .decoding.cpu.first_calls import expect_model
from .publishing.cards import CardFacts
from .publishing.download import explain_absence, fetch_beside
from .publishing.guard import Terms
from .publishing.publication import Publication, Request, publish_folder

# diffusers leaves them behind: they lie beside weights, and are none.
BESIDE_WEIGHTS = ("point_generator/generation_config.json",)
DOWNLOAD_OPTIONS = ("cache_dir", "local_files_only", "token")


class HubPipeline(DiffusionPipeline):
    """What `AvatarPipeline` adds to pushing and pulling."""

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: object) -> str | Path:
        """The folder of a repository in the cache, with all that a folder of ours has.

        Raises:
            FileNotFoundError: There is no such repository here, and no way to the Hub.
        """
        options = {name: kwargs[name] for name in DOWNLOAD_OPTIONS if kwargs.get(name)}
        try:
            folder = super().download(pretrained_model_name, **kwargs)
        except OSError as error:
            if is_absent(error):
                raise FileNotFoundError(explain_absence(pretrained_model_name)) from error
            raise
        expect_model(folder)
        for path in BESIDE_WEIGHTS:
            fetch_beside(Path(folder), pretrained_model_name, path, **options)
        return folder

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: object) -> HubPipeline:
        """A pipeline of the same parts, but for those that are given, in the same precision."""
        # Left to itself, diffusers drops a rig for being more than a HeadRig, and casts to float32.
        own = {name: part for name, part in pipeline.components.items() if name not in kwargs}
        return super().from_pipe(pipeline, **{"dtype": pipeline.conditioner.dtype, **own, **kwargs})

    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, **kwargs: object
    ) -> None:
        """Writes the pipeline to a folder.

        Args:
            save_directory: Where to.
            push_to_hub: Whether to publish it too, see `push_to_hub`.
            **kwargs: Of diffusers: `max_shard_size`, `variant` ...; with `push_to_hub`, its
                options too, above all `repo_id`.
        """
        names = PUSH_OPTIONS if push_to_hub else ()
        options = {name: kwargs.pop(name) for name in names if name in kwargs}
        super().save_pretrained(str(save_directory), **kwargs)
        if push_to_hub:
            repo_id = options.pop("repo_id", Path(save_directory).name)
            publish_folder(save_directory, _request(repo_id, **options))

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        *,
        licence: str | None = None,
        rights: str | None = None,
        licences: Mapping[str, tuple[str, str]] | None = None,
        facts: CardFacts | None = None,
        dry_run: bool = False,
        **kwargs: object,
    ) -> Publication:
        """Publishes the pipeline, with a card and the licences of its parts.

        Args:
            repo_id: user/name; made where there is none.
            commit_message: Of the one commit that it becomes.
            private: Whether only you can see it; None leaves that to your account.
            token: By default that of `hf auth login` or HF_TOKEN.
            create_pr: Whether to propose it instead of writing it.
            licence: As the Hub names it; by default that of the parts, if they have the same.
            rights: Why you may publish what is bound to others (FLAME, Michelangelo, recordings of
                people); a sentence, which is published too.
            licences: (source, licence) of parts that you trained or changed.
            facts: For the card: base model, data sets, results.
            dry_run: Whether to say what would be sent, and send nothing.
            **kwargs: Of diffusers: `variant`, `max_shard_size`.

        Raises:
            ValueError: It may not be published; the message says why, and what to do.
            OSError: The Hub refused it, or was not reached.
        """
        request = _request(
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            create_pr=create_pr,
            licence=licence,
            rights=rights,
            licences=licences,
            facts=facts,
            dry_run=dry_run,
        )
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.save_pretrained(folder, **kwargs)
            return publish_folder(folder, request)


PUSH_OPTIONS = (
    "repo_id",
    "commit_message",
    "private",
    "token",
    "create_pr",
    "licence",
    "rights",
    "licences",
    "facts",
    "dry_run",
)


def _request(
    repo_id: str,
    *,
    licence: str | None = None,
    rights: str | None = None,
    licences: Mapping[str, tuple[str, str]] | None = None,
    facts: CardFacts | None = None,
    **options: object,
) -> Request:
    return Request(
        repo_id,
        Terms(licence, rights),
        licences=licences or {},
        facts=facts or CardFacts(),
        **options,
    )


def is_absent(error: BaseException) -> bool:
    """Whether an error of the libraries means: not in the cache, and the Hub was not reached."""
    while error is not None:
        if type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
            return True
        error = error.__cause__ or error.__context__
    return False
