# SPDX-License-Identifier: Apache-2.0
"""What a run is told: by flags, and by a file of the same names in YAML or JSON.

    accelerate launch examples/train.py --config run.yaml --max_steps 100

A flag wins over the file. What neither says is the recipe's.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import get_type_hints

import yaml
from transformers import HfArgumentParser

from ..exporters.json_file import MAX_SIZE
from .encoders import Encoders
from .loop_config import LoopConfig

# What follows from the others, or is not for a command.
HIDDEN = ("output_dir", "show_progress")


@dataclass
class StageArguments:
    """Which stage, on what, and where to."""

    stage: str = field(
        metadata={
            "help": "regressor, generator, decoder, projected-decoder, tracked-decoder or "
            "generated-decoder"
        }
    )
    data: str = field(metadata={"help": "folder of a tokenised data set, or its id on the Hub"})
    output: str = field(metadata={"help": "folder of components, read and written"})
    size: str = field(default="tiny", metadata={"help": "of the networks, and the recipe"})
    start_from: str | None = field(
        default=None,
        metadata={"help": "folder of components whose weights regressor and generator begin with"},
    )
    image_encoder: str | None = field(
        default=None, metadata={"help": "folder or Hub id of a DINOv2 or DINOv3"}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "side of the portraits it sees, pixels"}
    )
    save_image_encoder: bool = field(
        default=False, metadata={"help": "save its weights too, not only where they are"}
    )
    point_cloud_encoder: str | None = field(
        default=None, metadata={"help": "folder of a converted Michelangelo"}
    )

    @property
    def encoders(self) -> Encoders:
        """The pretrained encoders."""
        return Encoders(
            image=self.image_encoder,
            point_cloud=self.point_cloud_encoder,
            image_size=self.image_size,
            are_inside=self.save_image_encoder,
        )


def _loop_arguments() -> type:
    hints = get_type_hints(LoopConfig)
    names = [f.name for f in fields(LoopConfig) if f.name not in HIDDEN]
    return make_dataclass(
        "LoopArguments",
        [(name, hints[name] | None, field(default=None)) for name in names],
        namespace={
            "__doc__": "The settings of the loop; the recipe says those that are not given."
        },
    )


LoopArguments = _loop_arguments()


def add_run_file(words: Sequence[str]) -> list[str]:
    """The words of a command, the file of its `--config` spelt out before the flags.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else than options.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    known, rest = finder.parse_known_args(list(words))
    return rest if known.config is None else [*list_flags(read_run_file(known.config)), *rest]


def parse_run(words: Sequence[str]) -> tuple[StageArguments, dict[str, object]]:
    """What a command says: of the stage, and of the settings those that are given.

    Args:
        words: Of the command, without the program, after `add_run_file`.

    Raises:
        SystemExit: A value is of another kind, or help was asked for.
        ValueError: There is no such option.
    """
    parser = HfArgumentParser((StageArguments, LoopArguments))
    parser.add_argument("--config", help="file of these options, in YAML or JSON; flags win")
    stage, loop = parser.parse_args_into_dataclasses(list(words))[:2]
    given = dataclasses.asdict(loop).items()
    return stage, {name: value for name, value in given if value is not None}


def read_run_file(path: str | Path) -> dict[str, object]:
    """The options of a file, in YAML, of which JSON is a part.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else than options.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`config` must be a file, and there is none at {path}.")
    if path.stat().st_size > MAX_SIZE:
        raise ValueError(f"`config` must have at most {MAX_SIZE} bytes, and {path} has more.")
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"`config` must be YAML or JSON, and {path} is not: {reason}") from error
    if not isinstance(values, dict):
        raise ValueError(f"`config` must hold names and values, and {path} does not.")
    known = [f.name for kind in (StageArguments, LoopArguments) for f in fields(kind)]
    for name, value in values.items():
        if name not in known:
            raise ValueError(
                f"`config` must hold options alone, and {path} has {name!r}; they are "
                f"{', '.join(known)}."
            )
        if isinstance(value, list | dict):
            raise ValueError(f"`{name}` must be one value, and in {path} it is {value!r}.")
    return values


def list_flags(values: dict[str, object]) -> list[str]:
    """The words of a command that say the same; None says nothing."""
    return [
        word
        for name, value in values.items()
        if value is not None
        for word in (f"--{name}", str(value))
    ]
