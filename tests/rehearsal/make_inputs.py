# SPDX-License-Identifier: Apache-2.0
"""What a group brings, made up: PYTHONPATH=tests python tests/rehearsal/make_inputs.py DIR.

FLAME, tracked captures of four people in two sequences each, weights of DINOv2, Michelangelo and
LPIPS, and a take of Live Link Face. Nothing in it belongs to anybody.
"""

from __future__ import annotations

import sys
from pathlib import Path

from made_up_captures import write_made_up_captures, write_portraits
from made_up_flame import make_up_flame, write_made_up_flame
from made_up_weights import write_alexnet, write_image_encoder, write_michelangelo

PICTURE_SIZE = 112
TAKE = """Timecode,BlendshapeCount,JawOpen,MouthSmileLeft,MouthSmileRight
00:00:00:00.0,61,0.0,0.0,0.0
00:00:00:20.0,61,0.5,0.0,0.0
00:00:00:40.0,61,1.0,0.0,0.0
00:00:01:00.0,61,0.0,0.8,0.8
"""
MICHELANGELO = {"size": 128, "layers": 2, "latents": 17}


def make_inputs(folder: Path) -> None:
    flame = make_up_flame()
    write_made_up_flame(flame, folder / "flame")
    write_made_up_captures(folder / "captures", flame, size=PICTURE_SIZE)
    write_portraits(folder / "portraits", size=320)
    write_image_encoder(folder / "dinov2")
    write_michelangelo(folder / "shapevae-256.ckpt", **MICHELANGELO)
    write_alexnet(folder / "alexnet-owt-7be5be79.pth")
    (folder / "face.csv").write_text(TAKE)


if __name__ == "__main__":
    make_inputs(Path(sys.argv[1]))
