# SPDX-License-Identifier: Apache-2.0
"""Floor 11. The command that serves the app."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_hub import show_log


def serve_app(
    model: Annotated[
        str | None, typer.Option(help="Pipeline folder or Hub id; default: see `avatar`.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets other machines in; this one alone without.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Default: the first free one from 7860 on.")
    ] = None,
    time_limit: Annotated[int, typer.Option(help="Seconds for an avatar.")] = 180,
    max_megabytes: Annotated[int, typer.Option(help="Of an upload.")] = 20,
    max_refine_steps: Annotated[
        int, typer.Option(help="Most steps of refinement that a visitor can choose.")
    ] = 200,
    queue_size: Annotated[int, typer.Option(help="Visitors who may wait for their turn.")] = 20,
    keep_minutes: Annotated[
        int, typer.Option(help="After which files of a visitor are deleted at the latest.")
    ] = 30,
) -> None:
    """Serve a page on which a photograph becomes an avatar; needs the extra `app`."""
    from .app.settings import AppSettings, find_examples

    settings = AppSettings(
        model=model,
        host=host,
        port=port,
        time_limit=time_limit,
        max_megabytes=max_megabytes,
        max_refine_steps=max_refine_steps,
        queue_size=queue_size,
        keep_minutes=keep_minutes,
        examples=find_examples(),
    )
    show_log()
    from .app.launch import launch_app

    launch_app(settings)
