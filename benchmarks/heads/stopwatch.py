# SPDX-License-Identifier: Apache-2.0
"""Seconds of each step and peak memory of one process: python stopwatch.py MODEL IMAGE STEPS.

The first call compiles and is not counted. Prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time

import torch

from pointillist_hf import AvatarPipeline, AvatarPipelineOutput


def checksum(result: AvatarPipelineOutput) -> str:
    """Of all numbers of the avatar."""
    numbers = vars(result.avatar.gaussians).values()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in numbers)).hexdigest()


def main(model: str, image: str, refine_steps: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    pipe = AvatarPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    pipe(image, seed=0, refine_steps=1)
    plain = pipe(image, seed=0, refine_steps=0)
    load, cpu = os.getloadavg()[0], time.process_time()
    result = pipe(image, seed=0, refine_steps=int(refine_steps))
    figures = {
        "seconds": {name: round(value, 2) for name, value in result.timings.items()},
        "feed_forward_seconds": round(sum(plain.timings.values()), 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load_before": round(load, 1),
        "same_bits": checksum(plain) == checksum(pipe(image, seed=0, refine_steps=0)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
