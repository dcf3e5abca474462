# SPDX-License-Identifier: Apache-2.0
"""Fits: exact gradients, exact resumption, a better picture than before."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from capture_files import tiny_capture

from pointillist_hf.data.captures.reading import read_capture
from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.fits import FIT_FILE, read_fit
from pointillist_hf.data.fitting.optimisation import Fit, camera_extent, fit_losses
from pointillist_hf.data.fitting.runner import fit_capture, fit_captures
from pointillist_hf.geometry.bound_splats import local_to_global
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.spherical_harmonics import num_sh_coefficients, sh_basis, sh_colors
from pointillist_hf.geometry.structures import BoundSplats
from pointillist_hf.rendering.rasterize import rasterize
from pointillist_hf.rendering.similarity import structural_similarity
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

CONFIG = FitConfig.preset(
    "fast", num_steps=24, densify_from=4, densify_until=20, densify_every=6, save_every=9,
    grad_threshold=1e-4, max_points=3700, sh_degree=1, sh_degree_every=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "anna"
    write_capture(tiny_capture(), path)
    return path


@pytest.fixture(scope="module")
def fit_dir(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "anna"
    fit_capture(folder, path, CONFIG, show_progress=False)
    return path


def result_files(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_gradients_of_local_parameters_agree_with_finite_differences():
    g = torch.Generator().manual_seed(0)
    corners = torch.tensor([[[-0.04, -0.03, 0], [0.05, -0.02, 0.01], [0.0, 0.05, 0.02]]]).double()
    splats = {
        "means": 0.3 * torch.randn(3, 3, generator=g),
        "log_scales": -1 + 0.2 * torch.randn(3, 3, generator=g),
        "quats": torch.randn(3, 4, generator=g),
        "opacity_logits": torch.randn(3, generator=g),
        "sh": 0.3 * torch.randn(3, 4, 3, generator=g),
    }
    splats = {name: value.double().requires_grad_() for name, value in splats.items()}
    camera = orbit_cameras([20.0], width=12, height=10, fov=8.0)
    camera = dataclasses.replace(camera, viewmats=camera.viewmats.double(), Ks=camera.Ks.double())
    center = torch.linalg.inv(camera.viewmats)[0, :3, 3]
    bindings, target = torch.zeros(3, dtype=torch.long), torch.rand(1, 10, 12, 3, generator=g)

    def loss(moved, *values):
        bound = BoundSplats(**dict(zip(splats, values, strict=True)), bindings=bindings)
        gaussians = local_to_global(bound, moved.expand(3, 3, 3))
        colors = sh_colors(bound.sh, gaussians.means, center, 1)
        image, _ = rasterize(
            dataclasses.replace(gaussians, colors=colors), camera, backend="reference"
        )
        return (image - target).square().mean() + 1 - structural_similarity(image, target.double())

    inputs = (corners.requires_grad_(), *splats.values())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_a_fit_makes_the_picture_better_and_no_face_empty(fit_dir):
    person = read_fit(fit_dir)
    assert torch.equal(person.splats.bindings.unique(), torch.arange(person.rig.num_faces))
    assert person.rig.num_faces < len(person.splats) <= CONFIG.max_points
    assert person.splats.sh_degree == 3  # as GaussianAvatars writes it
    assert person.splats.sh[:, 1:4].any()
    assert not person.splats.sh[:, 4:].any()
    figures = json.loads((fit_dir / FIT_FILE).read_text())["figures"]
    start = Fit(tiny_capture(), ProceduralHeadRig("low"), CONFIG)
    (number, *_) = tiny_capture().of_split("val")
    before = (start.render(number) - tiny_capture().images[number]).square().mean()
    assert figures["psnr_val"] > float(-10 * before.log10()) + 0.5
    assert not list(fit_dir.rglob("*.partial")) + list(fit_dir.glob("checkpoint*"))


def test_what_a_fit_writes_is_what_it_found(folder, tmp_path):
    config = dataclasses.replace(CONFIG, num_steps=2)
    fit = Fit(read_capture(folder), ProceduralHeadRig("low"), config)
    for _ in range(2):
        fit.advance()
    fit_capture(folder, tmp_path, config, show_progress=False)
    person = read_fit(tmp_path)
    for name, value in vars(fit.detached_splats()).items():
        found = getattr(person.splats, name)
        assert torch.equal(found[:, : value.shape[1]] if name == "sh" else found, value), name
    for name, value in vars(fit.detached_params()).items():
        assert torch.equal(getattr(person.rig_params, name), value), name


def test_an_interrupted_fit_ends_as_an_unbroken_one(folder, fit_dir, tmp_path, monkeypatch):
    class Interruption(Exception):
        pass

    advance = Fit.advance
    for stop_at in (5, 13, 22):  # before the first checkpoint, and between later ones

        def stop(fit, at=stop_at):
            if fit.state.step == at:
                raise Interruption
            return advance(fit)

        monkeypatch.setattr(Fit, "advance", stop)
        with pytest.raises(Interruption):
            fit_capture(folder, tmp_path / "anna", CONFIG, show_progress=False)
    monkeypatch.setattr(Fit, "advance", advance)
    fit_capture(folder, tmp_path / "anna", CONFIG, show_progress=False)
    broken, whole = result_files(tmp_path / "anna"), result_files(fit_dir)
    # Where the capture lies is told from the folder of the fit.
    notes = [json.loads(files.pop(FIT_FILE)) for files in (broken, whole)]
    assert notes[0] | {"capture": ""} == notes[1] | {"capture": ""}
    assert broken == whole


@pytest.mark.slow
def test_a_killed_fit_ends_as_an_unbroken_one(folder, fit_dir, tmp_path):
    config = f"FitConfig(**{dataclasses.asdict(CONFIG)!r})"
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from pointillist_hf.data.fitting.config import FitConfig\n"
        "from pointillist_hf.data.fitting.runner import fit_capture\n"
        f"fit_capture({str(folder)!r}, {str(tmp_path / 'anna')!r}, {config})"
    )
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=os.environ
        )
        if kills < 3:  # once while it starts, later anywhere
            time.sleep(4 + 1.7 * kills)
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert process.wait() == 0
            break
    broken, whole = result_files(tmp_path / "anna"), result_files(fit_dir)
    assert broken.keys() == whole.keys()
    assert all(broken[name] == whole[name] for name in whole if name != FIT_FILE)


def test_a_finished_fit_is_left_alone(folder, fit_dir):
    before = (fit_dir / FIT_FILE).stat().st_mtime_ns
    assert fit_capture(folder, fit_dir, CONFIG, show_progress=False) == {}
    assert (fit_dir / FIT_FILE).stat().st_mtime_ns == before


def test_a_fit_with_other_settings_or_of_another_capture_is_refused(folder, fit_dir, tmp_path):
    other = dataclasses.replace(CONFIG, seed=7)
    with pytest.raises(ValueError, match="holds another one"):
        fit_capture(folder, fit_dir, other, show_progress=False)
    write_capture(dataclasses.replace(tiny_capture(), splits=("train",) * 12), tmp_path / "anna")
    with pytest.raises(ValueError, match="holds another one"):
        fit_capture(tmp_path / "anna", fit_dir, CONFIG, show_progress=False)


def test_a_device_that_is_not_there_is_refused(folder, tmp_path):
    for device in ("gpu", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(ValueError, match="`device` must be one that torch has here"):
            fit_capture(folder, tmp_path, CONFIG, device=device, show_progress=False)


@pytest.mark.parametrize("grows", [True, False])
def test_nothing_is_changed_that_would_not_be_fitted_afterwards(grows):
    late = {"densify_from": 2, "densify_until": 100, "densify_every": 4, "num_steps": 10}
    changes = {"grad_threshold": 0.0} if grows else {"opacity_reset_every": 8}
    config = dataclasses.replace(CONFIG, max_points=10**5, **late, **changes)
    fit = Fit(tiny_capture(), ProceduralHeadRig("low"), config)
    counts = []
    for _ in range(10):
        fit.advance()
        counts.append(len(fit.state))
    assert counts[4] == counts[-1]  # after step 4, and not after step 8
    assert not grows or counts[4] > counts[2]
    assert float(fit.state.values["opacity_logits"].detach().sigmoid().max()) > 0.05


def test_one_broken_capture_does_not_stop_the_others(folder, tmp_path, caplog):
    (tmp_path / "captures" / "broken").mkdir(parents=True)
    captures = [tmp_path / "captures" / "broken", folder]
    config = dataclasses.replace(CONFIG, num_steps=1)
    failed = fit_captures(captures, tmp_path / "fits", config, show_progress=False)
    assert [*failed] == [str(captures[0])]
    assert "neither transforms_train.json" in failed[str(captures[0])]
    assert "neither transforms_train.json" in caplog.text
    assert (tmp_path / "fits" / "anna" / FIT_FILE).is_file()


def test_contributions_are_the_weights_of_the_picture():
    fit = Fit(tiny_capture(), ProceduralHeadRig("low"), CONFIG)
    contributions = fit.contributions([0, 1])
    with torch.no_grad():
        alphas = [rasterize(fit.gaussians(n), fit.capture.cameras[n : n + 1])[1] for n in (0, 1)]
    assert float(contributions.sum()) == pytest.approx(
        float(sum(a.sum() for a in alphas)), rel=1e-4
    )
    assert (contributions >= 0).all()


def test_a_camera_that_sees_nothing_leaves_the_loss_finite():
    fit = Fit(tiny_capture(), ProceduralHeadRig("low"), CONFIG)
    nothing = torch.zeros(len(fit.state), dtype=torch.bool)
    losses = fit_losses(torch.ones(1, 8, 8, 3), torch.ones(1, 8, 8, 3), fit.state, nothing, CONFIG)
    assert float(losses["loss"].detach()) == pytest.approx(0, abs=1e-6)


def test_a_static_camera_has_an_extent():
    assert camera_extent(torch.zeros(5, 3), CONFIG) == CONFIG.min_extent
    ring = torch.tensor([[-2.0, 0, 0], [2.0, 0, 0]])
    assert camera_extent(ring, CONFIG) == pytest.approx(2.2)


def test_tracking_is_refined_and_shape_is_not():
    fit = Fit(tiny_capture(), ProceduralHeadRig("low"), CONFIG)
    for _ in range(2):
        fit.advance()
    params, tracked = fit.detached_params(), tiny_capture().rig_params
    assert torch.equal(params.betas, tracked.betas)
    for name in ("expression", "neck_pose", "jaw_pose", "transl"):
        assert not torch.equal(getattr(params, name), getattr(tracked, name)), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "`num_steps`"),
        ({"sh_degree": 4}, "`sh_degree` must be a whole number, 0 to 3"),
        ({"prune_rule": "some"}, "`prune_rule`"),
        ({"init_opacity": 1.0}, "`init_opacity`"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**changes)


def test_fewer_points_than_faces_are_refused():
    with pytest.raises(ValueError, match="`max_points` must be at least 3"):
        Fit(tiny_capture(), ProceduralHeadRig("low"), dataclasses.replace(CONFIG, max_points=100))


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="`preset` must be one of paper, fast"):
        FitConfig.preset("slow")


# spherical harmonics ------------------------------------------------------------------------------


def test_harmonics_are_orthonormal():
    polar = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    z = (polar[1:] + polar[:-1]) / 2
    phi = torch.arange(64, dtype=torch.float64) * 2 * torch.pi / 64
    z, phi = torch.meshgrid(z, phi, indexing="ij")
    radius = (1 - z * z).sqrt()
    basis = sh_basis(torch.stack([radius * phi.cos(), radius * phi.sin(), z], -1).flatten(0, 1), 3)
    products = basis.T @ basis * (4 * torch.pi / len(basis))
    assert torch.allclose(products, torch.eye(16).double(), atol=1e-5)


def test_harmonics_agree_with_scipy():
    special = pytest.importorskip("scipy.special")
    if not hasattr(special, "sph_harm_y"):
        pytest.skip("scipy is older than its new harmonics")
    directions = torch.nn.functional.normalize(torch.randn(20, 3).double(), dim=-1)
    theta = directions[:, 2].acos().numpy()
    phi = torch.atan2(directions[:, 1], directions[:, 0]).numpy()
    basis, column = sh_basis(directions, 3), 0
    for degree in range(4):
        for order in range(-degree, degree + 1):
            complex_value = special.sph_harm_y(degree, abs(order), theta, phi)
            part = complex_value.imag if order < 0 else complex_value.real
            expected = torch.tensor(part * (2**0.5 if order else 1))
            assert torch.allclose(basis[:, column], expected, atol=1e-12), (degree, order)
            column += 1
    assert column == num_sh_coefficients(3)
