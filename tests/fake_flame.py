# SPDX-License-Identifier: Apache-2.0
"""FLAME files with the real structure and made-up numbers, and parameters for them."""

import io
import pickle
import sys
import types
from contextlib import contextmanager

import numpy as np
import scipy.sparse
import torch

from pointillist_hf.geometry.structures import RigParams

NUM_VERTICES, NUM_FACES = 5023, 9976


def fake_arrays(seed=0, num_expressions=10):
    """Float64 arrays by the names of the file; 310 directions keep it small."""
    rng = np.random.default_rng(seed)
    weights = rng.random((NUM_VERTICES, 5)) ** 4
    regressor = np.zeros((5, NUM_VERTICES))
    for row in regressor:
        chosen = rng.choice(NUM_VERTICES, 20, replace=False)
        row[chosen] = rng.random(20)
        row /= row.sum()
    parents = np.array([2**32 - 1, 0, 1, 1, 1], np.uint32)
    return {
        "v_template": rng.normal(0, 0.08, (NUM_VERTICES, 3)),
        "f": rng.integers(0, NUM_VERTICES, (NUM_FACES, 3)).astype(np.uint32),
        "shapedirs": rng.normal(0, 1e-3, (NUM_VERTICES, 3, 300 + num_expressions)),
        "posedirs": rng.normal(0, 1e-3, (NUM_VERTICES, 3, 36)),
        "J_regressor": regressor,
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([parents, np.arange(5, dtype=np.uint32)]),
    }


@contextmanager
def fake_chumpy():
    """Modules that pickle the way chumpy's do: the state of an object is its dictionary."""

    class Ch:
        def __init__(self, **state):
            self.__dict__.update(state)

    class Select(Ch):
        pass

    class Sum(Ch):
        pass

    modules = {"chumpy": {}, "chumpy.ch": {"Ch": Ch}, "chumpy.reordering": {"Select": Select}}
    modules["chumpy.ch"]["Sum"] = Sum
    for name, classes in modules.items():
        module = types.ModuleType(name)
        for class_name, value in classes.items():
            value.__module__, value.__qualname__ = name, class_name
            setattr(module, class_name, value)
        sys.modules[name] = module
    try:
        yield types.SimpleNamespace(Ch=Ch, Select=Select, Sum=Sum)
    finally:
        for name in modules:
            del sys.modules[name]


def as_python_2(data):
    """Names as Python 2 and old numpy and scipy wrote them."""
    for new, old in (
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"),
        (b"ccopyreg\n", b"ccopy_reg\n"),
        (b"cbuiltins\n", b"c__builtin__\n"),
    ):
        data = data.replace(new, old)
    return data


def dump(value, protocol=2):
    stream = io.BytesIO()
    pickle.dump(value, stream, protocol=protocol)
    return as_python_2(stream.getvalue()) if protocol <= 2 else stream.getvalue()


def write_flame(path, arrays=None, *, protocol=2, chumpy=None):
    """A .pkl like the official ones: a sparse regressor, and chumpy objects if wanted.

    Args:
        path: File to write.
        arrays: As `fake_arrays`.
        protocol: Of the pickle.
        chumpy: None, "ch" (plain objects) or "select" (slices, as some releases have them).
    """
    arrays = arrays or fake_arrays()
    content = {**arrays, "bs_style": "lbs", "bs_type": "lrotmin"}
    content["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    with fake_chumpy() as library:
        if chumpy:
            for name in ("shapedirs", "posedirs", "weights", "v_template"):
                content[name] = library.Ch(x=arrays[name], dirty_vars=set())
        if chumpy == "select":
            shape = arrays["shapedirs"].shape
            wide = np.concatenate([arrays["shapedirs"], np.ones((*shape[:2], 3))], axis=-1)
            places = np.arange(wide.size).reshape(wide.shape)[..., : shape[2]].ravel()
            content["shapedirs"] = library.Select(
                a=library.Ch(x=wide), idxs=places, preferred_shape=shape
            )
        path.write_bytes(dump(content, protocol))
    return arrays


def random_params(rig, frames=2, seed=0, scale=0.4):
    g = torch.Generator().manual_seed(seed)

    def draw(size):
        return scale * torch.randn(frames, size, generator=g)

    return RigParams(
        betas=draw(rig.num_betas)[:1].expand(frames, -1),
        expression=draw(rig.num_expressions),
        global_orient=draw(3),
        neck_pose=draw(3),
        jaw_pose=draw(3),
        leye_pose=draw(3),
        reye_pose=draw(3),
        transl=draw(3),
    )


def rotation(axis_angle):
    """Rodrigues' formula for one vector, float64."""
    angle = np.linalg.norm(axis_angle)
    x, y, z = axis_angle / angle
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K
