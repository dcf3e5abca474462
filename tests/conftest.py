# SPDX-License-Identifier: Apache-2.0
"""Real classes at tiny size, built once."""

import os
import shutil
import tempfile

# Before any Hugging Face library is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
# datasets would take a folder of today for one of the same name that an earlier run has cached.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="pointillist_datasets_")

import numpy as np
import pytest
import torch
from PIL import Image

from pointillist_hf.avatar import Avatar
from pointillist_hf.data.population.photography import take_portraits
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.geometry.structures import CanonicalPoints, Gaussians
from pointillist_hf.models.modeling_conditioner import AvatarConditioner
from pointillist_hf.models.modeling_gaussian_decoder import GaussianDecoder
from pointillist_hf.models.modeling_point_generator import PointGeneratorForCausalLM
from pointillist_hf.models.modeling_rig_regressor import RigRegressor
from pointillist_hf.models.tokenization_points import PointTokenizer
from pointillist_hf.pipeline_avatar import AvatarPipeline
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig
from pointillist_hf.training import recipes

torch.set_num_threads(1)  # threads cost more than they give at these sizes


def pytest_unconfigure():
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """A process for each core that we may use; of more than eight, memory would run out first."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores, 8)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def tiny_rig():
    return ProceduralHeadRig("low")


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_rig):
    return PointTokenizer(
        num_bins=64,
        num_faces=tiny_rig.num_faces,
        token_order="yzxb",
        cube_center=(0.0, -0.035, -0.03),
        cube_half_extent=0.25,
    )


@pytest.fixture(scope="session")
def tiny_points(tiny_rig):
    """40 points near the faces they are bound to."""
    g = torch.Generator().manual_seed(0)
    bindings = torch.randint(tiny_rig.num_faces, (40,), generator=g)
    centres = tiny_rig.v_template[tiny_rig.faces[bindings]].mean(1)
    return CanonicalPoints(centres + 0.003 * torch.randn(40, 3, generator=g), bindings)


@pytest.fixture(scope="session")
def tiny_gaussians(tiny_points):
    g = torch.Generator().manual_seed(1)
    count = len(tiny_points)
    return Gaussians(
        means=tiny_points.means,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=-1),
        scales=0.005 + 0.01 * torch.rand(count, 3, generator=g),
        opacities=0.3 + 0.6 * torch.rand(count, generator=g),
        colors=torch.rand(count, 3, generator=g),
    )


@pytest.fixture(scope="session")
def tiny_avatar(tiny_gaussians, tiny_points, tiny_rig):
    betas = torch.randn(tiny_rig.num_betas, generator=torch.Generator().manual_seed(2))
    return Avatar(tiny_gaussians, tiny_points.bindings, tiny_rig, betas)


@pytest.fixture(scope="session")
def tiny_generator(tiny_tokenizer):
    torch.manual_seed(0)
    config = recipes.build_generator_config("nano", tiny_tokenizer)
    return PointGeneratorForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tiny_decoder(tiny_tokenizer, tiny_generator):
    torch.manual_seed(0)
    config = recipes.build_decoder_config("nano", tiny_tokenizer, tiny_generator.config)
    return GaussianDecoder(config).eval()


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_rig, tiny_tokenizer, tiny_generator, tiny_decoder):
    torch.manual_seed(0)
    conditioner_config = recipes.build_conditioner_config("nano", tiny_tokenizer)
    return AvatarPipeline(
        image_processor=recipes.build_image_processor("nano"),
        rig=tiny_rig,
        conditioner=AvatarConditioner(conditioner_config).eval(),
        tokenizer=tiny_tokenizer,
        point_generator=tiny_generator,
        gaussian_decoder=tiny_decoder,
        rig_regressor=RigRegressor(recipes.build_regressor_config("nano", tiny_rig)).eval(),
        max_points=6,
    )


@pytest.fixture(scope="session")
def anchored_parts(tiny_pipeline):
    """Components of a pipeline whose generator reads the head, and is told a layout."""
    torch.manual_seed(0)
    old = tiny_pipeline.tokenizer
    tokenizer = PointTokenizer(
        num_bins=old.num_bins,
        num_faces=old.num_faces,
        token_order="byzx",
        cube_center=old.cube_center,
        cube_half_extent=old.cube_half_extent,
    )
    config = recipes.build_conditioner_config("nano-anchored", tokenizer)
    generator = recipes.build_generator_config("nano-anchored", tokenizer)
    return {
        **tiny_pipeline.components,
        "tokenizer": tokenizer,
        "conditioner": AvatarConditioner(config).eval(),
        "point_generator": PointGeneratorForCausalLM(generator).eval(),
    }


@pytest.fixture(scope="session")
def portrait(tiny_rig):
    """A rendered person of 96 pixels, RGBA."""
    subject = build_subject(3, resolution="low", density=0.15)
    image = take_portraits(subject, tiny_rig, 1, size=96).images[0]
    return Image.fromarray(np.round(255 * image).astype(np.uint8))
