# SPDX-License-Identifier: Apache-2.0
"""Floor 10. The commands that make safe files of what users have downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert_flame_file(
    path: Annotated[Path, typer.Argument(help="FLAME's .pkl or .npz.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    version: Annotated[
        str | None, typer.Option(help="2020, 2023, 2023_no_jaw or 2023_open; default: by name.")
    ] = None,
) -> None:
    """Convert a FLAME model, so that no pickle is read again. The licence stays FLAME's."""
    from .rigs.flame.model_file import convert_flame

    flame = convert_flame(path, output, version=version)
    typer.echo(f"FLAME {flame.version} in {output}; SHA-256 of the original {flame.sha256}")


def convert_michelangelo_file(
    path: Annotated[Path, typer.Argument(help="Michelangelo's shapevae-256.ckpt.")],
    output: Annotated[Path, typer.Argument(help="The folder to write.")],
) -> None:
    """Convert Michelangelo's point-cloud encoder for training. Its terms stay its own."""
    from .pretrained.michelangelo import convert_michelangelo

    encoder = convert_michelangelo(path, output)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    typer.echo(f"{weights / 1e6:.1f} M weights in {typer.format_filename(output)}")
