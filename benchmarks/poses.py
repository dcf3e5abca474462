# SPDX-License-Identifier: Apache-2.0
"""Does an avatar hold together when it moves? Counts holes, exploded splats and floaters.

python benchmarks/poses.py [--model DIR] [--num_people N] [--output DIR]

Held-out synthetic people, one portrait each, eight poses, three sides. What has been measured stays
in the folder of the output and is not measured again; avatars that lie there, such as those of
`examples/contact_sheet.py --avatars`, are not made again. The worst pictures go into `worst.png`,
on a loud background.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from heads.faults import PoseFaults, count_pose_faults
from PIL import Image
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf import Avatar, AvatarPipeline
from pointillist_hf.data.population.photography import sample_motion, take_snapshots
from pointillist_hf.data.population.subject import Subject, build_subject
from pointillist_hf.data.tokens.synthetic import FIRST_SEED
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import Cameras, RigParams
from pointillist_hf.rigs.head_rig import HeadRig

PORTRAIT_SIZE = 384
AZIMUTHS = (0.0, 60.0, 180.0)
LOUD = torch.tensor([1.0, 0.0, 1.0])
POSES = {
    "neutral": ({}, {}),
    "smile": ({"mouthSmile": 1.0, "cheekSquint": 0.7}, {}),
    "jaw open": ({}, {"jaw_pose": [0.32, 0.0, 0.0]}),
    "blink": ({"eyeBlink": 1.0}, {}),
    "surprise": (
        {"browInnerUp": 1.0, "browOuterUp": 1.0, "eyeWide": 1.0},
        {"jaw_pose": [0.2, 0.0, 0.0]},
    ),
    "turned left": ({}, {"neck_pose": [0.0, 0.6, 0.0]}),
    "turned right": ({}, {"neck_pose": [0.0, -0.6, 0.0]}),
}
DRIVEN = "driven"  # by the motion of the next person
COUNTS = ("hole_pixels", "exploded", "floaters", "islands")


@dataclass
class Arguments:
    """Who, made with what, and where it goes."""

    model: str = "model_cards/pointillist-tiny"
    output: str = "outputs/poses"
    num_people: int = 64
    first_person: int = 0
    size: int = 256
    seed: int = 0
    num_worst: int = 12


def photograph(subject: Subject, rig: HeadRig) -> Image.Image:
    """A photograph of the person before a plain colour."""
    cut_out = take_snapshots(subject, rig, 1, size=PORTRAIT_SIZE).images[0]
    backdrop = np.random.default_rng([subject.identity.seed, 9]).uniform(0.3, 0.9, 3)
    picture = cut_out[..., :3] * cut_out[..., 3:] + backdrop * (1 - cut_out[..., 3:])
    return Image.fromarray((255 * picture).round().clip(0, 255).astype(np.uint8))


def list_frames(avatar: Avatar, driver: Subject) -> Iterator[tuple[str, RigParams]]:
    """The poses by their names, one frame each."""
    for name, (expression, poses) in POSES.items():
        yield name, avatar.rig_params(expression, **poses)
    rng = np.random.default_rng([driver.identity.seed, 11])
    betas = torch.tensor(driver.identity.betas, dtype=torch.float32)
    yield DRIVEN, sample_motion(avatar.rig, betas, 1, rng, strength=1.0)


def measure_person(
    pipe: AvatarPipeline, seed: int, arguments: Arguments, folder: Path
) -> dict[str, object]:
    """The faults of a person by pose; kept in the folder, with the avatar."""
    cache = folder / f"{seed}.json"
    if cache.is_file():
        return json.loads(cache.read_text())
    subject, other = (
        build_subject(number, resolution=pipe.rig.config.resolution) for number in (seed, seed + 1)
    )
    row: dict[str, object] = {"seed": seed, "hair": subject.identity.hair_style}
    try:
        avatar = make_avatar(pipe, subject, arguments, folder / str(seed))
    except ValueError as error:  # no face is found
        row["problem"] = str(error)
    else:
        row["points"], around = len(avatar), cameras(arguments)
        row["poses"] = {
            name: asdict(count_pose_faults(avatar, frame, around))
            for name, frame in list_frames(avatar, other)
        }
    cache.write_text(json.dumps(row, indent=1) + "\n")
    return row


def make_avatar(
    pipe: AvatarPipeline, subject: Subject, arguments: Arguments, folder: Path
) -> Avatar:
    """The avatar of a person, or the one that is in the folder already."""
    if folder.is_dir():
        return Avatar.from_pretrained(folder)
    avatar = pipe(photograph(subject, pipe.rig), seed=arguments.seed).avatar
    avatar.save_pretrained(folder)
    return avatar


def cameras(arguments: Arguments) -> Cameras:
    """From the front, from the side and from behind."""
    return orbit_cameras(list(AZIMUTHS), width=arguments.size, height=arguments.size)


def summarise(rows: list[dict]) -> dict[str, object]:
    """Sums and means over people and poses."""
    made = [row for row in rows if "poses" in row]
    faults = {name: [row["poses"][name] for row in made] for name in (*POSES, DRIVEN)}
    every = [fault for some in faults.values() for fault in some]
    return {
        "people": len(rows),
        "without_a_face": len(rows) - len(made),
        "pictures": len(every) * len(AZIMUTHS),
        "clean_poses_percent": _percent([PoseFaults(**fault).is_clean for fault in every]),
        "points": round(_mean([row["points"] for row in made])),
        "missing_percent": round(_mean([fault["missing_percent"] for fault in every]), 3),
        **{
            name: {
                "sum": sum(fault[name] for fault in every),
                "poses_percent": _percent([fault[name] > 0 for fault in every]),
                "most": max(fault[name] for fault in every),
            }
            for name in COUNTS
        },
        "by_pose": {
            pose: {name: round(_mean([fault[name] for fault in some]), 3) for name in some[0]}
            for pose, some in faults.items()
        },
    }


def write_worst(rows: list[dict], arguments: Arguments, folder: Path) -> None:
    """The poses with most of each fault, from all sides."""
    cases = [
        (fault[name], name, row["seed"], pose)
        for row in rows
        for pose, fault in row.get("poses", {}).items()
        for name in COUNTS
    ]
    pictures, labels = [], []
    each = max(1, arguments.num_worst // len(COUNTS))
    for kind in COUNTS:
        known: set[int] = set()  # one pose of a person
        for count, _, seed, pose in sorted((c for c in cases if c[1] == kind), reverse=True):
            if seed in known or len(known) == each or not count:
                continue
            known.add(seed)
            avatar = Avatar.from_pretrained(folder / str(seed))
            driver = build_subject(seed + 1, resolution=avatar.rig.config.resolution)
            frame = dict(list_frames(avatar, driver))[pose]
            pictures += [*avatar.animate(frame).render(cameras(arguments), background=LOUD)]
            labels += [f"{count} {kind}", pose, str(seed)]
    if pictures:
        columns = 2 * len(AZIMUTHS)
        write_contact_sheet(
            torch.stack(pictures), folder / "worst.png", columns=columns, labels=labels
        )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _percent(values: list[bool]) -> float:
    return round(100 * _mean([float(value) for value in values]), 1)


@torch.no_grad()
def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    first = FIRST_SEED["test"] + arguments.first_person
    seeds = range(first, first + arguments.num_people)
    rows = [measure_person(pipe, seed, arguments, folder) for seed in tqdm(seeds, "people")]
    figures = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("pointillist-hf", "torch", "transformers")},
        "settings": {**vars(arguments)},
        **summarise(rows),
    }
    text = json.dumps(figures, indent=1)
    print(text)
    (folder / "poses.json").write_text(text + "\n", encoding="utf-8")
    write_worst(rows, arguments, folder)


if __name__ == "__main__":
    main()
