# SPDX-License-Identifier: Apache-2.0
"""What no portrait shows: avatars from behind, shoulders and long hair included."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pointillist_hf import AvatarPipeline
from pointillist_hf.exporters.images import write_contact_sheet

from .population import fit_size, photograph_person
from .regions import RIM, draw, grow, masked_psnr, mean, silhouette_overlap

AZIMUTHS = (-120.0, 180.0, 120.0)
HANGING = ("bob", "curly", "long")  # styles that fall over the neck


def measure_behind(pipe: AvatarPipeline, seed: int, folder: Path) -> dict:
    """Figures of one person, means over the views; kept in the folder, with a sheet to look at."""
    cache = folder / f"behind-{seed}.json"
    if cache.is_file():
        return json.loads(cache.read_text())
    person = photograph_person(seed, pipe.rig, AZIMUTHS)
    avatar = pipe(person.image, seed=0).avatar
    posed = fit_size(avatar, avatar.animate(person.rig_params).gaussians[0], person)
    images, alphas = draw(posed, person.cameras)
    matte = person.mattes > 0.5
    result = {
        "seed": seed,
        "hair": person.hair_style,
        "all_db": mean(masked_psnr(images, person.views, grow(matte, RIM))),
        "inside_db": mean(masked_psnr(images, person.views, matte)),
        "overlap": mean(silhouette_overlap(alphas, person.mattes, torch.ones_like(matte))),
    }
    labels = [f"{kind} {a:+.0f}" for kind in ("truth", "avatar") for a in AZIMUTHS]
    pictures = torch.cat([person.views, images])
    write_contact_sheet(pictures, cache.with_suffix(".png"), columns=len(AZIMUTHS), labels=labels)
    cache.write_text(json.dumps(result, indent=2) + "\n")
    return result


def average_behind(people: list[dict]) -> dict[str, dict]:
    """Means over all people, and over those whose hair hangs."""
    hanging = [person for person in people if person["hair"] in HANGING]
    names = ("all_db", "inside_db", "overlap")
    return {
        kind: {"people": len(rows), **{name: mean([row[name] for row in rows]) for name in names}}
        for kind, rows in (("everybody", people), ("hanging hair", hanging))
        if rows
    }
