# SPDX-License-Identifier: Apache-2.0
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from splat_scenes import FOCAL, NAMES, build_cameras, build_cloud, build_splat, find_clear_pixels
from torch import Tensor

from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.rendering import rasterize
from pointillist_hf.rendering.cpu import binning, blending, projection
from pointillist_hf.rendering.mesh import rasterize_mesh
from pointillist_hf.rendering.reference_backend import (
    EPS2D,
    MIN_ALPHA,
)


def render_with_gradients(gaussians, cameras, backgrounds, upstream, backend="cpu"):
    leaves = [getattr(gaussians, name).clone().requires_grad_() for name in NAMES]
    leaves.append(backgrounds.clone().requires_grad_())
    colors, alphas = rasterize(
        Gaussians(*leaves[:5]), cameras, backgrounds=leaves[5], backend=backend
    )
    image = torch.cat([colors, alphas], dim=-1)
    gradients = torch.autograd.grad(image, leaves, upstream.to(image))
    return image.detach(), dict(zip((*NAMES, "backgrounds"), gradients, strict=True))


BACKENDS = ("cpu", "reference")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "splat",
    [
        build_splat(opacity=0.0),
        build_splat(z=-2.0),  # behind the camera
        build_splat(z=-0.995),  # nearer than the near plane
        build_splat(x=5.0),
        build_splat(y=-5.0),
        build_splat()[:0],
    ],
    ids=["transparent", "behind", "too near", "right of", "above", "empty"],
)
def test_unseen_splats_leave_the_background(splat, backend):
    cameras, backgrounds = build_cameras(), torch.tensor([[0.1, 0.2, 0.3]])
    upstream = torch.ones(1, 32, 32, 4)
    image, gradients = render_with_gradients(splat, cameras, backgrounds, upstream, backend)
    torch.testing.assert_close(image[..., :3], backgrounds.expand(1, 32, 32, 3))
    assert (image[..., 3] == 0).all()
    for name in NAMES:
        assert gradients[name].shape == getattr(splat, name).shape
        assert (gradients[name] == 0).all()
    colors, _ = rasterize(splat, cameras, backend=backend)
    assert (colors == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("opacity", [0.8, 1.0])
def test_one_splat_has_its_analytic_image(backend, opacity):
    splat, cameras = build_splat(opacity=opacity), build_cameras()
    colors, alphas = rasterize(splat, cameras, backend=backend)
    y, x = torch.meshgrid(torch.arange(32) - 16.0, torch.arange(32) - 16.0, indexing="ij")
    # The ball's centre is 0.005 m off the axis, which stretches its footprint by 0.005^2.
    stretch = 0.005**2
    sigma = (FOCAL * 0.02) ** 2
    cov_xx = sigma * (1 + stretch) + EPS2D
    cov_xy = sigma * stretch
    det = cov_xx**2 - cov_xy**2
    power = 0.5 * (cov_xx * (x * x + y * y) - 2 * cov_xy * x * y) / det
    expected = (opacity * torch.exp(-power)).clamp(max=0.999)
    expected = torch.where(expected < MIN_ALPHA, 0, expected)
    torch.testing.assert_close(alphas[0, ..., 0], expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(colors[0], expected[..., None] * splat.colors[0], rtol=0, atol=2e-6)
    assert alphas[0, 16, 16, 0] == pytest.approx(min(opacity, 0.999), abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearer_splats_hide_farther_ones(backend):
    near, far = build_splat(z=-0.1, scale=1.0, opacity=1.0), build_splat(color=(1.0, 1.0, 1.0))
    values = {name: torch.cat([getattr(far, name), getattr(near, name)]) for name in NAMES}
    colors, _ = rasterize(Gaussians(**values), build_cameras(), backend=backend)
    expected = 0.999 * near.colors[0] + 0.001 * 0.8
    torch.testing.assert_close(colors[0, 16, 16], expected, rtol=0, atol=1e-6)


def test_one_pixel():
    splat = build_splat(x=0.0, y=0.0)
    colors, alphas = rasterize(splat, build_cameras(1, 1))
    assert colors.shape == (1, 1, 1, 3) and alphas.item() == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cameras_are_independent(backend):
    gaussians, cameras = build_cloud(), build_cameras(50, 30, yaws=(0.0, 0.7, -1.1))
    backgrounds = torch.rand(3, 3)
    colors, alphas = rasterize(gaussians, cameras, backgrounds=backgrounds, backend=backend)
    assert colors.shape == (3, 30, 50, 3) and alphas.shape == (3, 30, 50, 1)
    for index in range(3):
        one = slice(index, index + 1)
        color, alpha = rasterize(
            gaussians, cameras[one], backgrounds=backgrounds[one], backend=backend
        )
        assert torch.equal(color[0], colors[index]) and torch.equal(alpha[0], alphas[index])


@pytest.mark.parametrize(
    ("num_points", "extent", "width", "height"),
    [(200, 0.3, 70, 45), (300, 0.6, 33, 49), (60, 0.02, 40, 40)],
    ids=["spread", "off screen too", "deep stack"],
)
def test_cpu_agrees_with_the_float64_reference(num_points, extent, width, height):
    gaussians = build_cloud(num_points, 1, extent, torch.float64)
    cameras = build_cameras(width, height, yaws=(0.2, -0.6), dtype=torch.float64)
    clear = find_clear_pixels(gaussians, cameras)
    assert clear.double().mean() > 0.97
    g = torch.Generator().manual_seed(2)
    backgrounds = torch.rand(2, 3, generator=g, dtype=torch.float64)
    upstream = torch.randn(2, height, width, 4, generator=g, dtype=torch.float64)
    upstream = upstream * clear[..., None]
    args = (gaussians, cameras, backgrounds, upstream)
    image, gradients = render_with_gradients(*args)
    expected, expected_gradients = render_with_gradients(*args, backend="reference")
    assert image.dtype == torch.float32 and expected.dtype == torch.float64
    assert (image - expected)[clear].abs().max() < 1e-5
    for name, gradient in expected_gradients.items():
        assert gradient.norm() > 0, name
        assert (gradients[name] - gradient).norm() < 1e-4 * gradient.norm(), name


def test_reference_gradients_are_those_of_the_image():
    gaussians, cameras = build_cloud(3, 3, 0.1, torch.float64), build_cameras(6, 5)
    cameras = cameras.to(torch.float64)
    gaussians = replace(gaussians, scales=gaussians.scales * 3)  # keeps pixels away from the cut

    def render(*values: Tensor) -> Tensor:
        return torch.cat(rasterize(Gaussians(*values), cameras, backend="reference"), dim=-1)

    leaves = [getattr(gaussians, name).requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(render, leaves)


def test_same_bits_for_any_thread_count():
    # More splats than one range of the projection holds, and not a multiple of it.
    gaussians, cameras = build_cloud(3333, 4), build_cameras(100, 80, yaws=(0.0, 0.4))
    upstream = torch.randn(2, 80, 100, 4)
    before, runs = torch.get_num_threads(), []
    try:
        for num_threads in (1, 2, 3, 1, 2):
            torch.set_num_threads(num_threads)
            runs.append(render_with_gradients(gaussians, cameras, torch.rand(2, 3) * 0, upstream))
    finally:
        torch.set_num_threads(before)
    for image, gradients in runs[1:]:
        assert torch.equal(image, runs[0][0])
        for name in NAMES:
            assert torch.equal(gradients[name], runs[0][1][name]), name


@pytest.mark.parametrize("output", [0, 1], ids=["colors", "alphas"])
def test_gradients_reach_every_input(output):
    leaves = [getattr(build_cloud(), name).requires_grad_() for name in NAMES]
    rasterize(Gaussians(*leaves), build_cameras())[output].sin().sum().backward()
    for name, leaf in zip(NAMES, leaves, strict=True):
        assert leaf.grad.isfinite().all()
        assert (leaf.grad.abs().sum() > 0) == (output == 0 or name != "colors")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_splats_are_dropped(name, value, backend):
    gaussians, cameras = build_cloud(50), build_cameras()
    keep = torch.arange(50) != 7
    spoilt = getattr(gaussians, name).clone()
    spoilt.view(50, -1)[7, 0] = value
    upstream = torch.randn(1, 32, 32, 4)
    args = (cameras, torch.zeros(1, 3), upstream, backend)
    image, gradients = render_with_gradients(replace(gaussians, **{name: spoilt}), *args)
    expected, expected_gradients = render_with_gradients(gaussians[keep], *args)
    assert torch.equal(image, expected)
    for other in NAMES:
        assert torch.equal(gradients[other][keep], expected_gradients[other]), other
        assert (gradients[other][7] == 0).all()


def test_a_quaternion_of_length_zero_is_dropped():
    splat = replace(build_splat(), quats=torch.zeros(1, 4))
    for backend in BACKENDS:
        assert (rasterize(splat, build_cameras(), backend=backend)[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    gaussians, cameras = build_cloud(dtype=dtype), build_cameras()
    colors, _ = rasterize(gaussians, cameras)
    assert colors.dtype == torch.float32
    assert torch.equal(colors, rasterize(gaussians.to(torch.float32), cameras)[0])
    leaf = gaussians.means.requires_grad_()
    rasterize(gaussians, cameras)[0].sum().backward()
    assert leaf.grad.dtype == dtype


def test_strided_inputs():
    gaussians, cameras = build_cloud(), build_cameras()
    strided = Gaussians(**{n: torch.stack([getattr(gaussians, n)] * 2, -1)[..., 1] for n in NAMES})
    assert torch.equal(rasterize(strided, cameras)[0], rasterize(gaussians, cameras)[0])


def test_inputs_changed_before_backward_are_noticed():
    leaf = build_splat().colors.requires_grad_()
    colors, _ = rasterize(replace(build_splat(), colors=leaf), build_cameras())
    with torch.no_grad():
        leaf.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        colors.sum().backward()


def _render_in_child(queue: multiprocessing.Queue) -> None:
    # Threads of torch's own pool do not survive a fork either.
    torch.set_num_threads(1)
    colors, _ = rasterize(build_cloud(), build_cameras())
    queue.put(colors.numpy().copy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_renders():
    expected, _ = rasterize(build_cloud(), build_cameras())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_render_in_child, args=(queue,))
    child.start()
    colors = queue.get(timeout=30)
    child.join(timeout=10)
    assert child.exitcode == 0
    np.testing.assert_array_equal(colors, expected.numpy())


def test_the_kernels_agree_on_their_constants():
    for name in ("TILE_W", "TILE_H", "LOG2_E", "LOG2_MIN_ALPHA"):
        assert getattr(binning, name) == getattr(blending, name)
    assert np.log2(projection.MIN_ALPHA) == pytest.approx(blending.LOG2_MIN_ALPHA)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"gaussians": build_cloud()[None]}, r"must be one cloud \[N\], got \[1, 200\]"),
        ({"backgrounds": torch.zeros(2, 3)}, r"`backgrounds` must have shape \(1, 3\)"),
        ({"backgrounds": torch.zeros(3)}, r"`backgrounds` must have shape \(1, 3\)"),
        (
            {"gaussians": replace(build_cloud(), colors=torch.zeros(200, 3, dtype=torch.uint8))},
            "`gaussians.colors` must be floating point, got torch.uint8",
        ),
        (
            {"gaussians": replace(build_cloud(), colors=torch.zeros(200, 3, device="meta"))},
            "`gaussians.colors` is on meta",
        ),
        ({"cameras": build_cameras().to("meta")}, "`cameras.viewmats` is on meta"),
        ({"backend": "gsplat"}, "needs CUDA tensors, got cpu"),
        ({"backend": "taichi"}, "`backend` must be"),
    ],
)
def test_refusals(changes, error):
    kwargs = {"gaussians": build_cloud(), "cameras": build_cameras(), **changes}
    with pytest.raises(ValueError, match=error):
        rasterize(kwargs.pop("gaussians"), kwargs.pop("cameras"), **kwargs)


def test_camera_gradients_are_refused():
    cameras = build_cameras()
    cameras = replace(cameras, viewmats=cameras.viewmats.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"`cameras\.viewmats` requires a gradient"):
        rasterize(build_cloud(), cameras)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_gsplat_agrees_with_the_cpu():
    gaussians = build_cloud(2000, 5)
    cameras, backgrounds = build_cameras(96, 64, yaws=(0.0, 0.5)), torch.rand(2, 3)
    args = (gaussians, cameras, backgrounds)
    upstream = torch.randn(2, 64, 96, 4)
    expected, expected_gradients = render_with_gradients(*args, upstream)
    moved = [value.to("cuda") for value in args]
    image, gradients = render_with_gradients(*moved, upstream, backend="auto")
    difference = (image.cpu() - expected).abs()
    # gsplat computes with fast-math, so some pixels fall on the other side of the 1/255 cut.
    assert (difference < 2e-5).double().mean() > 0.99
    assert difference.max() < 2e-2
    for name, gradient in expected_gradients.items():
        assert (gradients[name].cpu() - gradient).norm() < 1e-2 * gradient.norm(), name


TRIANGLE = np.array([[-0.1, -0.1, 0.0], [0.1, -0.1, 0.0], [-0.1, 0.1, 0.0]])
FACES = np.array([[0, 1, 2]])


def draw(vertices, *args, faces=FACES, **kwargs):
    camera = build_cameras(40, 30, dtype=torch.float64)
    return rasterize_mesh(
        vertices, faces, camera.viewmats[0], camera.Ks[0], 40, 30, *args, **kwargs
    )


def test_a_triangle_covers_its_pixels():
    buffers = draw(TRIANGLE)
    # Corners at pixels (10, 5), (30, 5), (10, 25).
    y, x = np.meshgrid(np.arange(30) + 0.5 - 5, np.arange(40) + 0.5 - 10, indexing="ij")
    inside = (x > 0) & (y > 0) & (x + y < 20)
    on_edge = np.isclose(x + y, 20)
    np.testing.assert_array_equal((buffers.face_ids == 0)[~on_edge], inside[~on_edge])
    drawn = buffers.face_ids == 0
    np.testing.assert_allclose(buffers.depth[drawn], 1.0)
    assert np.isinf(buffers.depth[~drawn]).all() and (buffers.barycentric[~drawn] == 0).all()
    expected = np.stack([1 - (x + y) / 20, x / 20, y / 20], axis=-1)
    np.testing.assert_allclose(buffers.barycentric[drawn], expected[drawn], atol=1e-12)


def test_barycentric_coordinates_are_perspective_correct():
    vertices = TRIANGLE.copy()
    vertices[:, 2] = [0.3, -0.4, 0.8]
    buffers = draw(vertices)
    rows, columns = np.nonzero(buffers.face_ids == 0)
    assert len(rows) > 20
    points = buffers.barycentric[rows, columns] @ (vertices + np.array([0, 0, 1]))
    np.testing.assert_allclose(points[:, 2], buffers.depth[rows, columns])
    np.testing.assert_allclose(points[:, 0] / points[:, 2] * FOCAL + 20, columns + 0.5)
    np.testing.assert_allclose(points[:, 1] / points[:, 2] * FOCAL + 15, rows + 0.5)


def test_the_nearer_triangle_is_seen():
    near, far = TRIANGLE - [0, 0, 0.2], TRIANGLE[:, [1, 0, 2]]
    both = draw(np.concatenate([far, near]), faces=np.array([[0, 1, 2], [3, 4, 5]]))
    for first, second in ((far, near), (near, far)):
        offsets = (0, 1) if first is far else (1, 0)
        buffers = draw(first, face_offset=offsets[0])
        assert draw(second, buffers, face_offset=offsets[1]) is buffers
        np.testing.assert_array_equal(buffers.face_ids, both.face_ids)
        np.testing.assert_array_equal(buffers.depth, both.depth)
        np.testing.assert_array_equal(buffers.barycentric, both.barycentric)
    assert both.face_ids[15, 15] == 1 and both.depth[15, 15] == pytest.approx(0.8)


def test_bad_triangles_are_left_out():
    behind, flat, broken = TRIANGLE.copy(), TRIANGLE.copy(), TRIANGLE.copy()
    behind[0, 2], flat[2], broken[1, 0] = -1.0, flat[1], np.nan
    for vertices in (behind, flat, broken):
        assert (draw(vertices).face_ids == -1).all()


def test_mesh_refusals():
    buffers = draw(TRIANGLE)
    with pytest.raises(ValueError, match="pass a `face_offset`"):
        draw(TRIANGLE, buffers)
    camera = build_cameras()
    with pytest.raises(ValueError, match=r"must be \(32, 32\) pixels, got \(30, 40\)"):
        rasterize_mesh(TRIANGLE, FACES, camera.viewmats[0], camera.Ks[0], 32, 32, buffers, 1)
