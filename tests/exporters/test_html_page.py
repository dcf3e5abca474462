# SPDX-License-Identifier: Apache-2.0
"""The page of an avatar: what it carries, and, where there is a browser, what it shows."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_flame import write_flame
from PIL import Image

from pointillist_hf import Avatar, FlameHeadRig
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.exporters.html_page import BOUND_NOTICE
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.rotations import quat_to_matrix
from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.motion.arkit import arkit_params

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SIZE = 192


@pytest.fixture(scope="module")
def person(tiny_rig):
    """Somebody with a face, in the colours of the population."""
    subject = build_subject(2_000_003, resolution="low")
    cloud = sample_cloud(subject, num_skin_points=500, hair_budget=200)
    names = ("means", "quats", "scales", "colors")
    values = {name: torch.tensor(getattr(cloud, name), dtype=torch.float32) for name in names}
    gaussians = Gaussians(opacities=torch.full((len(cloud),), 0.9), **values)
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    return Avatar(gaussians, torch.tensor(cloud.bindings), tiny_rig, betas)


def read_page(path):
    """Header and arrays, as the page's program unpacks them."""
    text = path.read_text("utf-8")
    header = json.loads(re.search(r'id="header">(.*?)</script>', text, re.S)[1])
    body = base64.b64decode(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    arrays = {}
    for entry in header["arrays"]:
        kind = "<i2" if "scale" in entry else "<f4"
        array = np.frombuffer(body, kind, entry["length"], entry["start"])
        arrays[entry["name"]] = array * entry.get("scale", 1)
    return header, arrays


def test_the_page_carries_the_avatar(person, tmp_path):
    person.export(tmp_path / "me.html", title="<me> & you")
    header, arrays = read_page(tmp_path / "me.html")
    count = len(person)
    assert header["num_points"] == count
    assert header["parents"] == [-1, 0, 1, 1, 1]
    np.testing.assert_array_equal(arrays["rest"], person.gaussians.means.flatten())
    np.testing.assert_array_equal(arrays["colors"], person.gaussians.colors.flatten())
    np.testing.assert_allclose(arrays["lbs_weights"].reshape(count, 5).sum(1), 1, atol=1e-5)
    assert arrays["exprdirs"].size == 3 * count * person.rig.num_expressions
    assert "<title>&lt;me&gt; &amp; you</title>" in (tmp_path / "me.html").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["me.html"]


def test_the_page_needs_nothing_else(person, tmp_path):
    person.export(tmp_path / "me.html")
    text = re.sub(r'id="data">.*?</script>', "", (tmp_path / "me.html").read_text("utf-8"))
    assert not re.findall(r"https?:|src=|@import|fetch\(|XMLHttp|\{\{", text)


def test_covariances_are_those_of_the_splats(person, tmp_path):
    person.export(tmp_path / "me.html")
    _, arrays = read_page(tmp_path / "me.html")
    packed = arrays["rest_covariances"].reshape(-1, 6)
    xx, xy, xz, yy, yz, zz = packed[7]
    full = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    R = quat_to_matrix(person.gaussians.quats[7]).numpy()
    expected = R @ np.diag(person.gaussians.scales[7].numpy() ** 2) @ R.T
    np.testing.assert_allclose(full, expected, rtol=1e-3, atol=1e-9)


def test_directions_are_compressed_without_harm(person, tmp_path):
    person.export(tmp_path / "me.html")
    _, arrays = read_page(tmp_path / "me.html")
    exprdirs = arrays["exprdirs"].reshape(len(person), 3, -1)
    still = person.rig_params()
    for name in ("mouthSmile", "eyeBlink"):
        params = person.rig_params({name: 1.0})
        moved = person.animate(params).gaussians.means[0] - person.animate(still).gaussians.means[0]
        mine = exprdirs @ params.expression[0].numpy()
        assert np.abs(mine - moved.numpy()).max() < 2e-6


def test_broken_splats_are_left_out(person, tmp_path, caplog):
    colors = person.gaussians.colors.clone()
    colors[3, 1] = float("nan")
    gaussians = replace(person.gaussians, colors=colors)
    broken = Avatar(gaussians, person.bindings, person.rig, person.betas)
    broken.export(tmp_path / "me.html")
    header, arrays = read_page(tmp_path / "me.html")
    assert header["num_points"] == len(person) - 1
    assert np.isfinite(arrays["colors"]).all()
    assert "1 splats with non-finite values were left out" in caplog.text


def test_a_motion_travels_along(person, tmp_path):
    motion = arkit_params({"jawOpen": torch.tensor([0.0, 1.0])}, person.rig)
    person.export(tmp_path / "me.html", motion=motion, fps=12.0)
    header, _ = read_page(tmp_path / "me.html")
    assert header["motion"]["fps"] == 12
    assert header["motion"]["frames"][1]["poses"][2][0] == pytest.approx(0.35)


def test_a_motion_that_cannot_be_played_is_refused(person, tmp_path):
    motion = arkit_params({"jawOpen": torch.tensor([0.0, 1.0])}, person.rig)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`fps` must be positive"):
            person.export(tmp_path / "me.html", motion=motion, fps=fps)
    for bad in (motion[:0], replace(motion, jaw_pose=motion.jaw_pose + float("nan"))):
        with pytest.raises(ValueError, match="`motion` must hold at least one frame"):
            person.export(tmp_path / "me.html", motion=bad)
    assert not list(tmp_path.iterdir())


def test_a_page_on_a_bound_rig_says_so(tmp_path, caplog):
    write_flame(tmp_path / "flame2023.pkl")
    rig = FlameHeadRig.from_flame(tmp_path / "flame2023.pkl")
    bindings = torch.arange(20)
    gaussians = Gaussians(
        means=rig.v_template[rig.faces[bindings]].mean(1),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(20, 1),
        scales=torch.full((20, 3), 0.01),
        opacities=torch.full((20,), 0.8),
        colors=torch.full((20, 3), 0.5),
    )
    Avatar(gaussians, bindings, rig, torch.zeros(300)).export(tmp_path / "me.html")
    header, arrays = read_page(tmp_path / "me.html")
    assert header["notice"] == BOUND_NOTICE
    assert BOUND_NOTICE in caplog.text
    assert not header["has_names"]
    assert arrays["posedirs"].size == 20 * 3 * 36


def test_options_belong_to_the_page(person, tmp_path):
    with pytest.raises(ValueError, match=r"`title` is no option of a .ply"):
        person.export(tmp_path / "me.ply", title="me")
    assert not list(tmp_path.iterdir())


# In a browser -------------------------------------------------------------------------------------


def screenshot(page, address, folder):
    """What the page shows, and what it wrote to the console."""
    picture = folder / "shot.png"
    picture.unlink(missing_ok=True)
    options = (
        "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader "
        "--hide-scrollbars --force-device-scale-factor=1 --virtual-time-budget=3000 "
        f"--enable-logging=stderr --window-size={SIZE},{SIZE} --user-data-dir={folder}/profile"
    )
    run = subprocess.run(
        [BROWSER, *options.split(), f"--screenshot={picture}", f"{page.as_uri()}#bare&{address}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB")) / 255, console


def compare(person, tmp_path, address, params, azimuth=0.0, elevation=0.0):
    person.export(tmp_path / "me.html")
    shown, console = screenshot(tmp_path / "me.html", address, tmp_path)
    camera = orbit_cameras([azimuth], elevation, width=SIZE, height=SIZE)
    expected = person.animate(params).render(camera)[0].numpy()
    return shown, -10 * np.log10(np.square(shown - expected).mean()), console


needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "expression", "poses", "view"),
    [
        ("", {}, {}, {}),
        ("jawOpen=1", {}, {"jaw_pose": [0.35, 0, 0]}, {}),
        (
            "azimuth=40&elevation=10&mouthSmile=1&eyeBlinkLeft=1&turn%20head=0.5",
            {"mouthSmile": 1.0, "eyeBlinkLeft": 1.0},
            {"neck_pose": [0, 0.4, 0]},
            {"azimuth": 40.0, "elevation": 10.0},
        ),
    ],
)
def test_the_page_shows_what_we_render(address, expression, poses, view, person, tmp_path):
    params = person.rig_params(expression, **poses)
    _, psnr, console = compare(person, tmp_path, address, params, **view)
    assert psnr > 45
    assert console == []


@needs_browser
@pytest.mark.slow
def test_the_jaw_slider_moves_the_mouth_only(person, tmp_path):
    still, _, _ = compare(person, tmp_path, "", person.rig_params())
    opened, _, _ = compare(person, tmp_path, "jawOpen=1", person.rig_params())
    changed = np.abs(opened - still).max(-1) > 0.02
    rows = np.nonzero(changed.any(1))[0]
    assert changed.sum() > 50
    assert rows.min() > 0.45 * SIZE  # below the eyes


@needs_browser
@pytest.mark.slow
def test_the_page_corrects_poses_as_we_do(person, tmp_path):
    rig = type(person.rig)("low")
    g = torch.Generator().manual_seed(0)
    rig.posedirs.copy_(0.01 * torch.randn(rig.posedirs.shape, generator=g))
    corrected = Avatar(person.gaussians, person.bindings, rig, person.betas)
    turned = {"neck_pose": [0.0, 0.4, 0.0], "jaw_pose": [0.35, 0.0, 0.0]}
    params = corrected.rig_params(**turned)
    _, psnr, _ = compare(corrected, tmp_path, "turn%20head=0.5&jawOpen=1", params)
    assert psnr > 45
    plain = person.animate(person.rig_params(**turned)).gaussians.means
    assert (corrected.animate(params).gaussians.means - plain).norm(dim=-1).mean() > 0.001


@needs_browser
@pytest.mark.slow
def test_the_page_plays_its_motion(person, tmp_path):
    motion = arkit_params({"jawOpen": torch.ones(3)}, person.rig)
    motion = replace(motion, transl=torch.tensor([[0.05, 0.0, 0.0]]).repeat(3, 1))
    person.export(tmp_path / "me.html", motion=motion)
    shown, console = screenshot(tmp_path / "me.html", "", tmp_path)
    camera = orbit_cameras([0.0], width=SIZE, height=SIZE)
    expected = person.animate(motion[:1]).render(camera)[0].numpy()
    assert -10 * np.log10(np.square(shown - expected).mean()) > 45
    assert console == []
