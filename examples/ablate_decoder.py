# SPDX-License-Identifier: Apache-2.0
"""Table 2: python examples/ablate_decoder.py --data D --components C --output ABLATION.

Trains decoders that know different things of their points, several times each with as many steps:
the head's own vertices (template), the generator's points alone (positions), its features alone
(features), both, and points with what they show in the photograph (projected). Run the same command
again to go on where it stopped, through accelerate launch for many processes. Then

    pointillist-hf evaluate BENCHMARK -o RESULTS --model C --variants ABLATION

makes the table. Steps and rates are those of the stage decoder unless given.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import HfArgumentParser

from pointillist_hf.cli_errors import one_line_errors
from pointillist_hf.training.decoder_variants import VARIANTS, train_decoder_variants
from pointillist_hf.training.stage_settings import build_loop


@dataclass
class Arguments:
    """On what, how long, how often."""

    data: str
    components: str = "model_cards/pointillist-tiny"
    output: str = "outputs/ablation"
    size: str = "tiny"
    variants: list[str] = field(default_factory=lambda: [*VARIANTS])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    views_per_step: int = 3
    max_steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    warmup_steps: int | None = None
    save_steps: int | None = None
    perceptual: str | None = None
    mixed_precision: str | None = None


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    given = {**vars(arguments)}
    folders = {name: given.pop(name) for name in ("data", "components", "output")}
    choices = {name: given.pop(name) for name in ("size", "variants", "seeds", "views_per_step")}
    with one_line_errors():
        loop = build_loop("decoder", choices["size"], folders["output"], given)
        train_decoder_variants(**folders, loop=loop, **choices, on_trained=say)


def say(variant: str, seed: int) -> None:
    print(f"{variant} with seed {seed} is trained.")


if __name__ == "__main__":
    main()
