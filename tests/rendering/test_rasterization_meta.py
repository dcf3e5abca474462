# SPDX-License-Identifier: Apache-2.0
"""What the rasterizer tells beside the picture: screen positions, radii, depths, gradients."""

from dataclasses import replace

import pytest
import torch
from splat_scenes import NAMES, build_cameras, build_cloud, build_splat, find_clear_pixels

from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.rendering import rasterize
from pointillist_hf.rendering.gsplat_backend import probe_gradient, spread_projection
from pointillist_hf.rendering.reference_backend import (
    EPS2D,
    pixel_centres,
    project_splats,
    splat_alphas,
)

BACKENDS = ("cpu", "reference")


def probe_gradients(gaussians, cameras, upstream, backend, backgrounds=None):
    """The screen gradient of <colors and alphas, upstream>. [C, N, 2]"""
    probe = gaussians.means.new_zeros(len(cameras), len(gaussians), 2).requires_grad_()
    images = rasterize(
        gaussians, cameras, backgrounds=backgrounds, backend=backend, screen_probe=probe
    )
    (torch.cat(images, -1) * upstream).sum().backward()
    return probe.grad


@pytest.mark.parametrize(
    ("num_points", "extent", "width", "height"),
    [(200, 0.3, 70, 45), (300, 0.6, 33, 49), (60, 0.02, 40, 40)],
    ids=["spread", "off screen too", "deep stack"],
)
def test_screen_gradients_of_the_kernels_are_those_of_autograd(num_points, extent, width, height):
    cloud = build_cloud(num_points, 1, extent, torch.float64)
    cameras = build_cameras(width, height, yaws=(0.2, -0.6, 3.0), dtype=torch.float64)
    g = torch.Generator().manual_seed(2)
    backgrounds = torch.rand(3, 3, generator=g, dtype=torch.float64)
    upstream = torch.randn(3, height, width, 4, generator=g, dtype=torch.float64)
    upstream = upstream * find_clear_pixels(cloud, cameras)[..., None]
    expected = probe_gradients(cloud, cameras, upstream, "reference", backgrounds)
    found = probe_gradients(cloud, cameras, upstream, "cpu", backgrounds)
    assert found.shape == (3, num_points, 2) and found.dtype == torch.float64
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm() and other.norm() > 0


def test_screen_gradients_are_finite_differences():
    cloud = build_cloud(4, 3, 0.1, torch.float64)
    cloud = replace(cloud, scales=cloud.scales * 3)  # keeps pixels away from the cut
    cameras = build_cameras(6, 5, dtype=torch.float64)
    upstream = torch.randn(1, 5, 6, 3, dtype=torch.float64)
    splats = project_splats(cloud, cameras.viewmats[0], cameras.Ks[0], 6, 5)
    order = splats.depths.argsort()

    def loss(shift):
        moved = splats._replace(means2d=splats.means2d + shift)
        alphas = splat_alphas(moved, cloud.opacities, pixel_centres(6, 0, 5).double())[:, order]
        through = torch.cumprod(1 - alphas, -1) / (1 - alphas)
        return ((alphas * through) @ cloud.colors[order] * upstream.reshape(-1, 3)).sum()

    step = 1e-5 * torch.eye(8, dtype=torch.float64).reshape(8, 4, 2)
    differences = torch.stack([(loss(s) - loss(-s)) / 2e-5 for s in step]).reshape(4, 2)
    upstream = torch.cat([upstream, torch.zeros_like(upstream[..., :1])], -1)
    for backend, tolerance in (("reference", 1e-8), ("cpu", 1e-5)):
        found = probe_gradients(cloud, cameras, upstream, backend)[0]
        torch.testing.assert_close(found, differences, rtol=0, atol=tolerance)


def test_screen_gradients_have_the_same_bits_for_any_thread_count():
    cloud, cameras = build_cloud(3333, 4), build_cameras(100, 80, yaws=(0.0, 0.4))
    upstream = torch.randn(2, 80, 100, 4)
    before, runs = torch.get_num_threads(), []
    try:
        for num_threads in (1, 2, 3, 1):
            torch.set_num_threads(num_threads)
            runs.append(probe_gradients(cloud, cameras, upstream, "cpu"))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert torch.equal(run, runs[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_probe_changes_nothing_else(backend):
    cloud, cameras = build_cloud(50), build_cameras()

    def render(**kwargs):
        leaves = [getattr(cloud, name).clone().requires_grad_() for name in NAMES]
        colors, alphas = rasterize(Gaussians(*leaves), cameras, backend=backend, **kwargs)
        (colors.sin().sum() + alphas.sum()).backward()
        return [colors.detach(), alphas.detach(), *(leaf.grad for leaf in leaves)]

    probe = torch.zeros(1, 50, 2, requires_grad=True)
    for one, other in zip(render(screen_probe=probe), render(), strict=True):
        assert torch.equal(one, other)
    first = probe.grad.clone()
    render(screen_probe=probe)
    torch.testing.assert_close(probe.grad, 2 * first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "cloud",
    [build_splat()[:0], build_splat(z=-2.0), build_splat(x=5.0), build_splat(opacity=0.003)],
    ids=["empty", "behind", "right of", "transparent"],
)
def test_what_is_not_drawn_has_no_size_and_no_gradient(cloud, backend):
    cameras, probe = build_cameras(), torch.zeros(1, len(cloud), 2, requires_grad=True)
    colors, alphas, meta = rasterize(
        cloud, cameras, backend=backend, screen_probe=probe, with_meta=True
    )
    (colors.sum() + alphas.sum()).backward()
    assert probe.grad.shape == (1, len(cloud), 2) and (probe.grad == 0).all()
    assert meta.means2d.shape == (1, len(cloud), 2) and (meta.means2d == 0).all()
    assert meta.radii.shape == (1, len(cloud)) and (meta.radii == 0).all()
    assert meta.depths.shape == (1, 32, 32, 1) and (meta.depths == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_cameras(backend):
    cameras, probe = build_cameras()[:0], torch.zeros(0, 1, 2, requires_grad=True)
    colors, _, meta = rasterize(
        build_splat(), cameras, backend=backend, screen_probe=probe, with_meta=True
    )
    assert colors.shape == (0, 32, 32, 3)
    assert meta.radii.shape == (0, 1) and meta.depths.shape == (0, 32, 32, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_are_those_of_the_whole_cloud(backend):
    cloud, cameras = build_cloud(50), build_cameras(yaws=(0.0, 0.5))
    upstream = torch.randn(2, 32, 32, 4)
    keep = (torch.arange(50) != 7) & (torch.arange(50) != 20)
    colors = cloud.colors.clone()
    colors[7], colors[20] = float("nan"), float("inf")
    spoilt = replace(cloud, colors=colors)
    whole = probe_gradients(spoilt, cameras, upstream, backend)
    assert torch.equal(whole[:, keep], probe_gradients(cloud[keep], cameras, upstream, backend))
    assert (whole[:, ~keep] == 0).all()
    meta = rasterize(spoilt, cameras, backend=backend, with_meta=True)[2]
    expected = rasterize(cloud[keep], cameras, backend=backend, with_meta=True)[2]
    for name in ("means2d", "radii"):
        assert torch.equal(getattr(meta, name)[:, keep], getattr(expected, name))
        assert (getattr(meta, name)[:, ~keep] == 0).all()
    assert torch.equal(meta.depths, expected.depths)


@pytest.mark.parametrize("backend", BACKENDS)
def test_screen_positions_and_radii(backend):
    cloud, cameras = build_cloud(300, 1, 0.6), build_cameras(60, 40, yaws=(0.0, 0.7))
    meta = rasterize(cloud, cameras, backend=backend, with_meta=True)[2]
    is_drawn = meta.radii > 0
    assert 0.05 < is_drawn.double().mean() < 0.95
    pixels, _ = project_points(cloud.means, cameras)
    torch.testing.assert_close(meta.means2d[is_drawn], pixels[is_drawn], rtol=1e-5, atol=1e-4)
    assert not meta.means2d.requires_grad and not meta.radii.requires_grad
    # A splat is drawn where it changes the picture when it stands alone.
    for n in range(0, 300, 10):
        alphas = rasterize(cloud[n : n + 1], cameras, backend=backend)[1]
        shown = alphas.flatten(1).amax(1) > 0
        assert (is_drawn[:, n] | ~shown).all()
        for c in range(2):
            rows, columns = torch.nonzero(alphas[c, ..., 0], as_tuple=True)
            distances = torch.stack([columns, rows], -1) + 0.5 - meta.means2d[c, n]
            assert (distances.abs() <= meta.radii[c, n] + 1e-3).all()


def test_both_backends_see_the_same_splats():
    cloud, cameras = build_cloud(2000, 1, 0.6), build_cameras(60, 40, yaws=(0.0, 0.7))
    one, other = (
        rasterize(cloud, cameras, backend=backend, with_meta=True)[2] for backend in BACKENDS
    )
    torch.testing.assert_close(one.means2d, other.means2d, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(one.depths, other.depths, rtol=1e-3, atol=1e-4)
    # Rounding up doubles a difference in the last bit into a pixel.
    assert (one.radii != other.radii).double().mean() < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_radius_of_a_ball(backend):
    splat = build_splat(x=0.0, y=0.0, opacity=0.8)
    meta = rasterize(splat, build_cameras(), backend=backend, with_meta=True)[2]
    variance = torch.tensor((100 * 0.02) ** 2 + EPS2D)
    reach = (2 * variance * torch.tensor(0.8 * 255).log()).sqrt()
    assert meta.radii.tolist() == [[reach.ceil()]]
    assert meta.means2d.tolist() == [[[16.0, 16.0]]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_depths_are_means_of_what_is_seen(backend):
    near, far = build_splat(z=-0.1, opacity=0.6), build_splat(z=0.3)
    both = Gaussians(*(torch.cat([getattr(far, n), getattr(near, n)]) for n in NAMES))
    cameras = build_cameras()
    single = rasterize(near, cameras, backend=backend, with_meta=True)[2].depths
    alphas = [rasterize(one, cameras, backend=backend)[1] for one in (near, far)]
    shown = alphas[0] > 0
    assert shown.any() and not shown.all()
    torch.testing.assert_close(single[shown], torch.full_like(single[shown], 0.9))
    assert (single[~shown] == 0).all()
    weights = alphas[0], (1 - alphas[0]) * alphas[1]
    expected = (weights[0] * 0.9 + weights[1] * 1.3) / (weights[0] + weights[1])
    depths = rasterize(both, cameras, backend=backend, with_meta=True)[2].depths
    seen = ~expected.isnan()
    torch.testing.assert_close(depths[seen], expected[seen], rtol=1e-5, atol=1e-5)
    assert not depths.requires_grad


def test_depths_are_those_of_the_picture_although_the_splats_moved_on():
    means = build_splat().means.requires_grad_()
    splat, cameras = replace(build_splat(), means=means), build_cameras()
    meta = rasterize(splat, cameras, with_meta=True)[2]
    with torch.no_grad():
        means += 5.0
    assert meta.depths[0, 16, 16, 0] == pytest.approx(1.0)
    assert meta.depths is meta.depths


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_probes_of_other_precision(dtype):
    probe = torch.zeros(1, 1, 2, dtype=dtype, requires_grad=True)
    for backend in BACKENDS:
        colors, _ = rasterize(build_splat(), build_cameras(), backend=backend, screen_probe=probe)
        assert colors.dtype == torch.float32
        (colors * torch.linspace(0, 1, 32)[:, None]).sum().backward()
        assert probe.grad.dtype == dtype and probe.grad[0, 0, 0] > 0


@pytest.mark.parametrize(
    ("probe", "error"),
    [
        (torch.zeros(1, 2, 2, requires_grad=True), r"`screen_probe` must have shape \(1, 1, 2\)"),
        (torch.zeros(1, 1, 2), "`screen_probe` must be a leaf that requires a gradient"),
        (torch.zeros(1, 1, 2, requires_grad=True) * 1, "`screen_probe` must be a leaf"),
        (torch.zeros(1, 1, 2, dtype=torch.int64), "`screen_probe` must be floating point on cpu"),
        (torch.zeros(1, 1, 2, device="meta"), "on cpu, got torch.float32 on meta"),
    ],
)
def test_refusals(probe, error):
    with pytest.raises(ValueError, match=error):
        rasterize(build_splat(), build_cameras(), screen_probe=probe)


def test_gradients_of_gsplat_are_copied_to_the_probe():
    """The part of the gsplat backend that needs no CUDA, on positions of our own."""
    is_finite = torch.tensor([True, False, True, True])
    positions = torch.randn(2, 3, 2, requires_grad=True)
    probe, factors = torch.zeros(2, 4, 2, requires_grad=True), torch.randn(2, 3, 2)
    for count in (1, 2):
        means2d = 3 * positions
        probe_gradient(means2d, probe, is_finite)
        (means2d * factors).sum().backward()
        torch.testing.assert_close(probe.grad[:, is_finite], count * factors)
        assert (probe.grad[:, ~is_finite] == 0).all()
    torch.testing.assert_close(positions.grad, 6 * factors)


@pytest.mark.parametrize("per_axis", [True, False], ids=["gsplat 1.5", "gsplat 1.4"])
def test_positions_of_gsplat_are_spread_over_the_whole_cloud(per_axis):
    is_finite = torch.tensor([True, False, True, True])
    means2d = torch.randn(1, 3, 2)
    means2d[0, 1] = float("nan")  # gsplat leaves the rows of culled splats unwritten
    radii = torch.tensor([[[3, 5], [4, 0], [2, 1]]], dtype=torch.int32)
    radii = radii if per_axis else radii.amax(-1) * torch.tensor([1, 0, 1], dtype=torch.int32)
    all_means2d, all_radii = spread_projection(means2d, radii, is_finite)
    assert all_radii.tolist() == [[5, 0, 0, 2]]
    assert torch.equal(all_means2d[0, [0, 3]], means2d[0, [0, 2]])
    assert (all_means2d[0, 1:3] == 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("only_probe", [False, True])
def test_gsplat_tells_the_same(only_probe):
    cloud, cameras = build_cloud(2000, 5), build_cameras(96, 64, yaws=(0.0, 0.5))
    cloud.means[9] = float("nan")
    upstream = torch.randn(2, 64, 96, 4)
    expected = probe_gradients(cloud, cameras, upstream, "cpu")
    meta = rasterize(cloud, cameras, with_meta=True)[2]
    moved, views = cloud.to("cuda"), cameras.to("cuda")
    if not only_probe:
        moved = replace(moved, means=moved.means.requires_grad_())
    found = probe_gradients(moved, views, upstream.cuda(), "gsplat").cpu()
    assert (found - expected).norm() < 1e-2 * expected.norm()
    theirs = rasterize(moved, views, with_meta=True)[2]
    # gsplat rounds radii up before it asks what lies beside the image.
    both = (meta.radii > 0) & (theirs.radii.cpu() > 0)
    assert both.sum() > 0.95 * (meta.radii > 0).sum()
    assert (meta.radii - theirs.radii.cpu())[both].abs().max() <= 1
    difference = (meta.means2d - theirs.means2d.cpu())[both].abs()
    assert difference.max() < 1e-2
    shown = (meta.depths > 0) & (theirs.depths.cpu() > 0)
    assert (meta.depths - theirs.depths.cpu())[shown].abs().median() < 1e-4
