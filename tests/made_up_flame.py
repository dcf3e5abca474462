# SPDX-License-Identifier: Apache-2.0
"""A FLAME that is a head, with the real structure and none of the real numbers.

It is our own head, refined to 5,023 vertices and 9,976 faces, its vertices in an order that puts
lips where the teeth are built on. Its 300 + 100 directions are mixtures of ours, so that what our
own people do can be said in its coefficients, as a tracker would say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fake_flame import NUM_FACES, NUM_VERTICES, write_flame

from pointillist_hf.geometry.structures import POSE_NAMES, RigParams
from pointillist_hf.rigs.flame.teeth import LOWER_LIP, UPPER_LIP
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

NUM_BETAS, NUM_EXPRESSIONS = 300, 100
NOISE = 5e-6  # metres per unit: no direction is a mixture of others to the last digit
# iBUG landmarks from the subject's left corner of the mouth to the right one.
UPPER_INNER, UPPER_OUTER = (64, 63, 62, 61, 60), (54, 53, 51, 49, 48)
LOWER_INNER, LOWER_OUTER = (64, 65, 66, 67, 60), (54, 55, 57, 59, 48)
LIP_SHARE = 0.3  # of the way from the inner to the outer contour


@dataclass(frozen=True)
class MadeUpFlame:
    """The arrays of the file, and how our own coefficients become its."""

    arrays: dict[str, np.ndarray]
    landmarks: dict[str, np.ndarray]
    mix_betas: np.ndarray  # [S, 300] orthonormal rows
    mix_expression: np.ndarray  # [E, 100] likewise

    def track(self, rig_params: RigParams, rng: np.random.Generator, noise: float) -> RigParams:
        """Parameters of our head in FLAME's coefficients, with a tracker's errors.

        Args:
            rig_params: T frames on our own head.
            rng: Source of the errors.
            noise: Standard deviation of the coefficients'; angles have a tenth of it, and
                translations a tenth of that.
        """
        exact = {name: getattr(rig_params, name) for name in (*POSE_NAMES, "transl")}
        exact["expression"] = rig_params.expression @ torch.tensor(self.mix_expression).float()
        scales = {"expression": noise, "transl": noise / 100}
        moved = {
            name: value
            + scales.get(name, noise / 10) * torch.tensor(rng.normal(size=value.shape)).float()
            for name, value in exact.items()
        }
        # One person has one shape, and the tracker's error is the same at all times.
        betas = rig_params.betas[:1] @ torch.tensor(self.mix_betas).float()
        betas = betas + noise * torch.tensor(rng.normal(size=betas.shape)).float()
        return RigParams(betas=betas.expand(len(rig_params), -1), **moved)


def make_up_flame(seed: int = 0) -> MadeUpFlame:
    """The same seed, the same head."""
    rng, rig = np.random.default_rng(seed), ProceduralHeadRig("full")
    corners, faces = _refine(rig, rng)
    per_vertex = {
        name: _average(getattr(rig, name).double().numpy(), corners)
        for name in ("v_template", "shapedirs", "exprdirs", "posedirs", "lbs_weights")
    }
    regressor = np.zeros((5, NUM_VERTICES))
    regressor[:, : len(rig.v_template)] = rig.J_regressor.double().numpy()
    places = _lip_places(rig)
    order = _reorder(per_vertex["v_template"], places)  # old vertex of each new one
    mix_betas = _orthonormal(rig.num_betas, NUM_BETAS, rng)
    mix_expression = _orthonormal(rig.num_expressions, NUM_EXPRESSIONS, rng)
    directions = np.concatenate(
        [per_vertex["shapedirs"] @ mix_betas, per_vertex["exprdirs"] @ mix_expression], axis=-1
    )[order]
    new_of_old = np.argsort(order)
    arrays = {
        "v_template": per_vertex["v_template"][order],
        "f": new_of_old[faces].astype(np.uint32),
        "shapedirs": directions + NOISE * rng.normal(size=directions.shape),
        "posedirs": per_vertex["posedirs"][order],
        "J_regressor": regressor[:, order],
        "weights": per_vertex["lbs_weights"][order],
        "kintree_table": np.stack(
            [np.array([2**32 - 1, 0, 1, 1, 1], np.uint32), np.arange(5, dtype=np.uint32)]
        ),
    }
    landmarks = {
        "full_lmk_faces_idx": rig.landmark_faces.numpy()[None],
        "full_lmk_bary_coords": rig.landmark_barycentric.double().numpy()[None],
    }
    return MadeUpFlame(arrays, landmarks, mix_betas, mix_expression)


def write_made_up_flame(flame: MadeUpFlame, folder: Path) -> tuple[Path, Path]:
    """flame2023.pkl, as chumpy pickles it, and the landmarks. Returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    model, landmarks = folder / "flame2023.pkl", folder / "landmark_embedding_with_eyes.npy"
    write_flame(model, flame.arrays, chumpy="select")
    np.save(landmarks, np.array(flame.landmarks, dtype=object))
    return model, landmarks


def _refine(rig: ProceduralHeadRig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Old corners that each vertex is the mean of [V, 3], and faces [F, 3].

    Faces are split at their middle until there are enough vertices; what faces are lacking then
    close the neck. Faces of landmarks stay as they are.
    """
    old = rig.faces.numpy()
    count = len(rig.v_template)
    corners = np.repeat(np.arange(count)[:, None], 3, axis=1)
    free = np.setdiff1d(np.arange(len(old)), rig.landmark_faces.numpy())
    chosen = rng.choice(free, NUM_VERTICES - count, replace=False)
    corners = np.concatenate([corners, old[chosen]])
    faces, more = old.copy(), []
    for middle, face in enumerate(chosen, start=count):
        a, b, c = old[face]
        faces[face] = a, b, middle
        more += [(b, c, middle), (c, a, middle)]
    faces = np.concatenate([faces, np.array(more)])
    web = _web(old, rig.v_template.numpy(), NUM_FACES - len(faces))
    return corners, np.concatenate([faces, web])


def _web(faces: np.ndarray, vertices: np.ndarray, count: int) -> np.ndarray:
    """Faces across the open end of the neck, from its edges to vertices on the other side."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    inner = {(b, a) for a, b in edges.tolist()}
    following = {a: b for a, b in edges.tolist() if (a, b) not in inner}
    lowest = min(following, key=lambda vertex: vertices[vertex, 1])
    loop = [lowest]
    while following[loop[-1]] != lowest:
        loop.append(following[loop[-1]])
    size, web = len(loop), []
    for step in range(2, size):
        web += [(loop[(i + 1) % size], loop[i], loop[(i + step) % size]) for i in range(size)]
    return np.array(web[:count])


def _average(values: np.ndarray, corners: np.ndarray) -> np.ndarray:
    return values[corners].mean(1)


def _orthonormal(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(columns, rows)))[0].T


def _lip_places(rig: ProceduralHeadRig) -> dict[int, np.ndarray]:
    """Where the vertices of these numbers have to be."""
    marks = rig.landmarks(rig.v_template[None])[0].double().numpy()
    contours = (
        (UPPER_LIP, UPPER_INNER, UPPER_OUTER),
        (LOWER_LIP, LOWER_INNER, LOWER_OUTER),
    )
    places = {}
    for ring, inner, outer in contours:
        line = (1 - LIP_SHARE) * marks[list(inner)] + LIP_SHARE * marks[list(outer)]
        steps = np.linspace(0, len(line) - 1, len(ring))
        columns = [np.interp(steps, np.arange(len(line)), line[:, axis]) for axis in range(3)]
        places |= dict(zip(ring, np.stack(columns, axis=-1), strict=True))
    return places


def _reorder(vertices: np.ndarray, places: dict[int, np.ndarray]) -> np.ndarray:
    """Old vertex of each new one, so that those of `places` are the nearest to them."""
    order = np.arange(len(vertices))
    free = np.ones(len(vertices), bool)
    chosen = {}
    for number, place in places.items():
        distances = np.linalg.norm(vertices - place, axis=-1)
        chosen[number] = int(np.where(free, distances, np.inf).argmin())
        free[chosen[number]] = False
    for number, vertex in chosen.items():
        there = int(np.flatnonzero(order == vertex)[0])
        order[[number, there]] = order[[there, number]]
    return order
