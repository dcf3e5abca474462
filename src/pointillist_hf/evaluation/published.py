# SPDX-License-Identifier: Apache-2.0
"""The rows of Tables 1 and 2 as the paper prints them.

Who its 25 people are, how many pictures of them were taken, in which size and by which landmarks,
is not published. Its figures can be looked at beside others, and not compared with them.
"""

from __future__ import annotations

HEADING = (
    "As printed in the paper: other people, another number of pictures, other settings. "
    "Not comparable with the rows above."
)
SELF, CROSS = ("lpips", "fid", "akd", "apd"), ("fid", "clip", "akd", "apd")
_ROWS = {
    "Portrait4Dv2": ((0.20, 123.02, 5.32, 34.53), (191.13, 0.63, 11.94, 142.93)),
    "AvatarArtist": ((0.21, 118.94, 6.87, 39.58), (175.69, 0.61, 9.32, 187.31)),
    "LAM": ((0.24, 136.01, 4.37, 61.83), (238.54, 0.54, 6.68, 210.23)),
    "GAGAvatar": ((0.18, 111.76, 3.93, 27.94), (181.22, 0.71, 10.01, 170.12)),
    "AvatarPointillist": ((0.15, 95.18, 2.38, 22.86), (160.74, 0.75, 5.93, 153.13)),
}
_ABLATION = {
    "Flame Position": (0.23, 120.34, 4.82, 41.22),
    "AR Feature": (0.22, 110.93, 5.89, 32.96),
    "AR Position": (0.19, 103.80, 5.81, 41.49),
    "AvatarPointillist": (0.15, 95.18, 2.38, 22.86),
}
PUBLISHED: dict[int, dict[str, dict[str, dict[str, float]]]] = {
    1: {
        system: {
            "self": dict(zip(SELF, own, strict=True)),
            "cross": dict(zip(CROSS, cross, strict=True)),
        }
        for system, (own, cross) in _ROWS.items()
    },
    2: {system: {"self": dict(zip(SELF, row, strict=True))} for system, row in _ABLATION.items()},
}
