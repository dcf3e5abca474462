# SPDX-License-Identifier: Apache-2.0
"""Floor 11. The commands that have to do with the Hub and with the first use."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer


class _Terminal(logging.Handler):
    """Lines on stderr, wherever that leads at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)


def show_log() -> None:
    """Lets the package say on the terminal what it is about."""
    package = logging.getLogger(__package__)
    if not any(isinstance(handler, _Terminal) for handler in package.handlers):
        package.addHandler(_Terminal())
    package.setLevel(logging.INFO)


def warm_up_kernels(
    model: Annotated[
        str | None, typer.Option(help="Pipeline folder or Hub id; default: see `avatar`.")
    ] = None,
) -> None:
    """Compile the CPU kernels, so that the first avatar need not wait for them."""
    show_log()
    from .first_use import warm_up
    from .pipeline_avatar import AvatarPipeline

    seconds = warm_up(AvatarPipeline.from_pretrained(model))
    typer.echo(f"CPU kernels are ready after {seconds:.1f} s")


def push_folder(
    folder: Annotated[Path, typer.Argument(help="Of a pipeline, an avatar or a data set.")],
    repo_id: Annotated[str, typer.Argument(help="user/name on the Hub.")],
    licence: Annotated[
        str | None, typer.Option(help="As the Hub names it; default: that of card and parts.")
    ] = None,
    rights: Annotated[
        str | None,
        typer.Option(help="Why you may publish what is bound to others; it is published too."),
    ] = None,
    private: Annotated[
        bool | None, typer.Option(help="Whether only you can see it; default: your account's.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose it instead of writing it.")
    ] = False,
    card: Annotated[
        Path | None, typer.Option(help="A card of your own, instead of the folder's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")
    ] = False,
) -> None:
    """Publish a folder on the Hub, with a card and the licences of its parts."""
    options = {
        "private": private,
        "commit_message": message,
        "create_pr": create_pr,
        "dry_run": dry_run,
        "card": card,
    }
    if list(folder.glob("*.parquet")):
        from .data.tokens.publication import push_token_dataset

        sent = push_token_dataset(folder, repo_id, licence=licence, rights=rights, **options)
    else:
        from .publishing.guard import Terms
        from .publishing.publication import Request, publish_folder

        sent = publish_folder(folder, Request(repo_id, Terms(licence, rights), **options))
    for file in sent.files:
        typer.echo(f"{file.size:12,d}  {file.sha256[:16]}  {file.path}")
    total = f"{len(sent.files)} files, {sent.size / 1e6:.1f} MB, licence {sent.licence}"
    typer.echo(f"{total}: {'nothing was sent' if sent.url is None else sent.url}")
