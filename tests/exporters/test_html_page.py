# SPDX-License-Identifier: Apache-2.0
"""The page of an avatar: what it carries, and, where there is a browser, what it shows."""

import base64
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_flame import write_flame
from PIL import Image

from pointillist_hf import Avatar, FlameHeadRig, ProceduralHeadRig
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.exporters.html_page import BOUND_NOTICE
from pointillist_hf.exporters.packed_arrays import pack_tables
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.rotations import axis_angle_to_matrix, quat_to_matrix
from pointillist_hf.geometry.structures import CanonicalPoints, Gaussians
from pointillist_hf.geometry.triangles import face_areas, interpolate_corners, sample_surface
from pointillist_hf.motion.arkit import arkit_params
from pointillist_hf.rigs.binding import bind_points

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


@pytest.fixture(scope="module")
def crowd():
    """20,000 splats all over the full rig, turned every way, that change colour slowly."""
    rig, g = ProceduralHeadRig("full"), torch.Generator().manual_seed(0)
    betas = 0.5 * torch.randn(rig.num_betas, generator=g)
    rest = rig.canonical_vertices(betas[None])[0]
    bindings, barycentric = sample_surface(face_areas(rest, rig.faces), 20_000, seed=0)
    means = interpolate_corners(rest, rig.faces, bindings, barycentric)
    means = means + 0.001 * torch.randn(20_000, 3, generator=g)
    gaussians = Gaussians(
        means=means,
        quats=torch.randn(20_000, 4, generator=g),
        scales=0.002 * torch.exp(0.5 * torch.randn(20_000, 3, generator=g)),
        opacities=torch.rand(20_000, generator=g),
        colors=0.5 + 0.4 * torch.sin(40 * means) + 0.1 * torch.rand(20_000, 3, generator=g),
    )
    return Avatar(gaussians, bindings, rig, betas)


def read_page(path):
    """Header and tables, as the page's program unpacks them."""
    text = path.read_text("utf-8")
    header = json.loads(re.search(r'id="header">(.*?)</script>', text, re.S)[1])
    data = base64.b64decode(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    return header, read_tables(zlib.decompress(data), header["tables"])


def read_tables(body, entries):
    tables, start = {}, 0
    for entry in entries:
        rows, columns, width = entry["rows"], entry["columns"], entry["width"]
        planes = np.frombuffer(body, np.uint8, width * columns * rows, start)
        start += planes.size
        places = 256 ** np.arange(width)[:, None, None]
        sums = (planes.reshape(width, columns, rows) * places).sum(0).cumsum(1).T
        half = 256**width // 2
        tables[entry["name"]] = ((sums + half) % (2 * half) - half) * entry["step"]
    assert start == len(body)
    return tables


def inherit(tables, name):
    """What the points have of a table of vertices. [N, columns]"""
    second, third = tables["barycentric"].T
    shares = np.stack([1 - second - third, second, third], axis=-1)
    faces = tables["faces"].astype(int)[tables["bindings"][:, 0].astype(int)]
    return np.einsum("nk,nkc->nc", shares, tables[name][faces])


def test_the_page_carries_the_avatar(person, tmp_path):
    person.export(tmp_path / "me.html", title="<me> & you")
    header, tables = read_page(tmp_path / "me.html")
    assert header["parents"] == [-1, 0, 1, 1, 1]
    assert header["fps"] is None
    half_steps = {"means": 2.5e-6, "colors": 0.5 / 255, "opacities": 0.5 / 255}
    for name, half_step in half_steps.items():
        expected = getattr(person.gaussians, name).reshape(len(person), -1).numpy()
        assert np.abs(tables[name] - expected).max() < 1.01 * half_step
    assert "<title>&lt;me&gt; &amp; you</title>" in (tmp_path / "me.html").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["me.html"]


def test_the_same_avatar_gives_the_same_page(person, tmp_path):
    person.export(tmp_path / "me.html")
    person.export(tmp_path / "again.html")
    assert (tmp_path / "me.html").read_bytes() == (tmp_path / "again.html").read_bytes()


def test_the_page_needs_nothing_else(person, tmp_path):
    person.export(tmp_path / "me.html")
    text = re.sub(r'id="data">.*?</script>', "", (tmp_path / "me.html").read_text("utf-8"))
    assert not re.findall(r"https?:|src=|@import|fetch\(|XMLHttp|\{\{", text)


def test_a_page_of_many_points_stays_small(crowd, tmp_path):
    crowd.export(tmp_path / "me.html")
    assert len(crowd) == 20_000
    assert (tmp_path / "me.html").stat().st_size < 1.2e6


def test_sizes_and_turns_are_those_of_the_splats(crowd, tmp_path):
    crowd.export(tmp_path / "me.html")
    _, tables = read_page(tmp_path / "me.html")
    sizes = np.exp(tables["log_scales"]) / crowd.gaussians.scales.numpy()
    assert np.abs(sizes - 1).max() < 0.0051
    turns = axis_angle_to_matrix(torch.tensor(tables["axis_angles"], dtype=torch.float32))
    assert (turns - quat_to_matrix(crowd.gaussians.quats)).abs().max() < 0.005


def test_points_inherit_what_the_rig_says(crowd, tmp_path):
    crowd.export(tmp_path / "me.html")
    _, tables = read_page(tmp_path / "me.html")
    rest = crowd.rig.canonical_vertices(crowd.betas[None])[0]
    points = CanonicalPoints(crowd.gaussians.means, crowd.bindings)
    bound = bind_points(points, crowd.rig, rest)
    for name, limit in {"exprdirs": 1e-5, "posedirs": 1e-5, "lbs_weights": 5e-4}.items():
        expected = getattr(bound, name).flatten(1).numpy()
        assert np.abs(inherit(tables, name) - expected).max() < limit
    np.testing.assert_allclose(inherit(tables, "lbs_weights").sum(1), 1, atol=5e-5)


def test_only_what_points_hang_on_is_sent(person, tmp_path):
    some = Avatar(person.gaussians[:5], person.bindings[:5], person.rig, person.betas)
    some.export(tmp_path / "me.html")
    _, tables = read_page(tmp_path / "me.html")
    assert len(tables["faces"]) == len(person.bindings[:5].unique())
    assert len(tables["exprdirs"]) == len(person.rig.faces[person.bindings[:5]].unique())


@pytest.mark.parametrize("largest", [0, 100, 127, 128, 30_000, 32_768, 8_388_608, 1e12])
def test_tables_survive_packing(largest):
    rng = np.random.default_rng(0)
    table = rng.uniform(-largest, largest, (50, 3))
    table[7, 1], table[8, 1] = -largest, largest
    body, entries = pack_tables({"a": table, "b": table[:0]}, {"a": 1.0, "b": 0.5})
    tables = read_tables(zlib.decompress(body), entries)
    assert np.abs(tables["a"] - table).max() <= max(0.5, largest / 2**30)
    assert tables["b"].shape == (0, 3)


def test_broken_splats_are_left_out(person, tmp_path, caplog):
    colors = person.gaussians.colors.clone()
    colors[3, 1] = float("nan")
    gaussians = replace(person.gaussians, colors=colors)
    broken = Avatar(gaussians, person.bindings, person.rig, person.betas)
    broken.export(tmp_path / "me.html")
    _, tables = read_page(tmp_path / "me.html")
    assert len(tables["colors"]) == len(person) - 1
    assert "1 splats with non-finite values were left out" in caplog.text


def test_a_motion_travels_along(person, tmp_path):
    motion = arkit_params({"jawOpen": torch.tensor([0.0, 1.0])}, person.rig)
    person.export(tmp_path / "me.html", motion=motion, fps=12.0)
    header, tables = read_page(tmp_path / "me.html")
    assert header["fps"] == 12
    poses = motion.poses.flatten(1).numpy()
    np.testing.assert_allclose(tables["motion_poses"], poses, atol=1e-4)
    assert tables["motion_poses"][1, 6] == pytest.approx(0.35)
    assert tables["motion_expression"].shape == (2, person.rig.num_expressions)


def test_a_motion_that_cannot_be_played_is_refused(person, tmp_path):
    motion = arkit_params({"jawOpen": torch.tensor([0.0, 1.0])}, person.rig)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`fps` must be positive"):
            person.export(tmp_path / "me.html", motion=motion, fps=fps)
    broken = replace(motion, jaw_pose=motion.jaw_pose + float("nan"))
    for bad, message in ((motion[:0], "at least one frame"), (broken, "must be finite")):
        with pytest.raises(ValueError, match=message):
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
    header, tables = read_page(tmp_path / "me.html")
    assert header["notice"] == BOUND_NOTICE
    assert BOUND_NOTICE in caplog.text
    assert not header["has_names"]
    assert tables["posedirs"].shape[1] == 3 * 36


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
        timeout=300,
        check=True,
    )
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB")) / 255, console


def compare(person, tmp_path, address, params, azimuth=0.0, elevation=0.0, fov=18.0):
    person.export(tmp_path / "me.html")
    shown, console = screenshot(tmp_path / "me.html", address, tmp_path)
    camera = orbit_cameras([azimuth], elevation, fov=fov, width=SIZE, height=SIZE)
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
        ("eyeBlink=1", {"eyeBlink": 1.0}, {}, {}),
    ],
)
def test_the_page_shows_what_we_render(address, expression, poses, view, person, tmp_path):
    params = person.rig_params(expression, **poses)
    _, psnr, console = compare(person, tmp_path, address, params, **view)
    assert psnr > 45
    assert console == []


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "expression", "poses"),
    [
        ("", {}, {}),
        ("jawOpen=1", {}, {"jaw_pose": [0.35, 0, 0]}),
        ("mouthSmile=1&turn%20head=0.5", {"mouthSmile": 1.0}, {"neck_pose": [0, 0.4, 0]}),
        ("eyeBlink=1", {"eyeBlink": 1.0}, {}),
    ],
)
def test_many_points_are_shown_as_well(address, expression, poses, crowd, tmp_path):
    # From near, where the weakest of these movements alone changes the picture to 47 dB.
    params, address = crowd.rig_params(expression, **poses), f"fov=6&{address}"
    _, psnr, console = compare(crowd, tmp_path, address, params, fov=6.0)
    assert psnr > 48
    assert console == []


@needs_browser
@pytest.mark.slow
def test_an_old_browser_is_told(person, tmp_path):
    person.export(tmp_path / "me.html")
    page = (tmp_path / "me.html").read_text("utf-8")
    page = page.replace("<body>", "<body><script>delete window.DecompressionStream</script>")
    (tmp_path / "old.html").write_text(page, "utf-8")
    _, console = screenshot(tmp_path / "old.html", "", tmp_path)
    assert "This browser is too old for this page" in console[0]


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
