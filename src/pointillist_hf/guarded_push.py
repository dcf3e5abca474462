# SPDX-License-Identifier: Apache-2.0
"""Floor 0. The parts of a pipeline are pushed to the Hub through the guard that looks at licences.

diffusers and transformers give every part a `push_to_hub` that sends whatever it holds. What stands
here goes before theirs. The guard lies floors above the parts, so it is called by name.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

GUARD = "pointillist_hf.publishing.parts"
OPTIONS = ("commit_message", "token", "create_pr")  # that the libraries hand on


class GuardedPush:
    """A base that comes before those of diffusers and transformers."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        licence: str | None = None,
        source: str | None = None,
        rights: str | None = None,
        **options: object,
    ) -> object:
        """Publishes the part by itself, with a card; `from_pretrained` reads it by its id.

        Args:
            repo_id: user/name; made where there is none.
            licence: As the Hub names it, for instance apache-2.0.
            source: Where the weights come from, for instance what they were trained on.
            rights: Why you may publish what is bound to others (FLAME, Michelangelo, recordings of
                people); a sentence, which is published too.
            **options: `private`, `token`, `commit_message`, `create_pr`, `dry_run`.

        Returns:
            What was sent, or would be: a `publishing.publication.Publication`.

        Raises:
            ValueError: It may not be published; the message says why, and what to do.
            OSError: The Hub refused it, or was not reached.
        """
        words = {"licence": licence, "source": source, "rights": rights, **options}
        return import_module(GUARD).push_part(self, repo_id, **words)

    def _upload_folder(
        self, working_dir: str | Path, repo_id: str, *_: object, **options: object
    ) -> object:
        """What diffusers calls at the end of `save_pretrained` and `save_config` to send a folder.

        The repository is there by then, and empty if this refuses.
        """
        words = {name: options[name] for name in OPTIONS if options.get(name)}
        return import_module(GUARD).push_part_folder(working_dir, repo_id, **words)

    _upload_modified_files = _upload_folder  # what transformers calls
