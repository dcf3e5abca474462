# SPDX-License-Identifier: Apache-2.0
"""Trains one stage: accelerate launch examples/train.py --stage generator --data DIR --output DIR.

The stages in order: regressor, generator, decoder. Each finds the components it needs in
OUTPUT and saves its own there. Run the same command again to go on from the last checkpoint.
With --image_encoder ID_OR_FOLDER (DINOv2, with registers or without, or DINOv3) the generator needs
no regressor; --point_cloud_encoder FOLDER takes Michelangelo's, converted.
--size tiny-depth gives the generator the depth head, --size tiny-anchored one that reads the
tracked head, --size paper trains with the paper's settings. --eval_steps and --sample_steps are for
the generator: held-out nats per point, and pictures of points in OUTPUT/generator_run/samples.
--config FILE reads options from YAML or JSON; flags win.
"""

from __future__ import annotations

import sys

from accelerate import PartialState

from pointillist_hf.cli_errors import one_line_errors
from pointillist_hf.training.run_arguments import add_run_file, parse_run
from pointillist_hf.training.stage_settings import build_loop
from pointillist_hf.training.stages import run_stage


def main() -> None:
    with one_line_errors():
        words = add_run_file(sys.argv[1:])
    run, given = parse_run(words)
    with one_line_errors():
        loop = build_loop(run.stage, run.size, run.output, given)
        run_stage(run.stage, run.data, run.output, run.size, loop, run.encoders, run.start_from)
    # Left to the interpreter's end, the threads of the processes' group may abort it.
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
