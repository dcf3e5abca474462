# SPDX-License-Identifier: Apache-2.0
"""Makes a tokenised data set of synthetic people: python examples/make_dataset.py --output DIR.

An interrupted run goes on where it stopped. Load the result with datasets.load_dataset(DIR).
"""

from __future__ import annotations

from dataclasses import dataclass

import datasets
from transformers import HfArgumentParser

from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset


@dataclass
class Arguments:
    """Where to, and with how many processes."""

    output: str
    num_proc: int = 1


def main() -> None:
    parser = HfArgumentParser((Arguments, SyntheticDatasetConfig))
    arguments, config = parser.parse_args_into_dataclasses()
    datasets.disable_progress_bars()  # one bar over the shards is enough
    build_synthetic_dataset(arguments.output, config, num_proc=arguments.num_proc)


if __name__ == "__main__":
    main()
