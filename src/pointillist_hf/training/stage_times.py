# SPDX-License-Identifier: Apache-2.0
"""How long a stage will take, by what it has taken."""

from __future__ import annotations

from collections.abc import Mapping

from .loop_config import LoopConfig

# By stage and size, with the recipe's settings, as `make checkpoint` runs it on two CPU cores with
# AVX-512; the card of the embedded model says on which data. The rest has not been measured.
MINUTES = {
    ("regressor", "tiny"): 30,
    ("generator", "tiny-depth"): 39,
    ("generator", "tiny-anchored"): 95,  # half of what one core took
    ("projected-decoder", "tiny"): 43,
}


def estimate_minutes(
    stage: str, size: str, config: LoopConfig, usual: Mapping[str, object]
) -> float | None:
    """Minutes of the whole stage on two CPU cores; None where nobody knows.

    Args:
        stage: Of training.
        size: Of the networks.
        config: Of the run.
        usual: What the recipe says of the stage; time goes with the rows of all steps.
    """
    # Sizes of one family share all but the generator.
    shared = size if stage == "generator" else size.split("-")[0]
    minutes = MINUTES.get((stage, shared))
    if minutes is None:
        return None
    usual_rows = usual["max_steps"] * usual["batch_size"]
    return round(minutes * config.max_steps * config.batch_size / usual_rows, 1)
