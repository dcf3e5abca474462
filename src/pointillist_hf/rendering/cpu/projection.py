# SPDX-License-Identifier: Apache-2.0
"""The numba kernels that project splats onto the image plane, and their gradients, float32.

The same rules as `reference_backend.project_splats`, written out by element. Constants are repeated
here and no kernel calls into another file, because numba's cache notices no edits there.

Legend of the short names:
    W, H           image size, pixels
    R*, t*         rotation and translation of the camera
    x, y, z        centre in the camera frame
    u, v           x/z and y/z, clamped to a frustum 1.3 times as wide as the image
    a*, b*         rows of J R: image x and y by world coordinates
    w, i_, j_, k_  unit quaternion; r* its rotation matrix, s* the scales, M = r diag(s)
    p*, q*         rows of J R M, whose inner products are the 2-D covariance (A, B; B, C)
    n*             derivative of the loss by M
    dA, da*, ...   derivative of the loss by A, by a*, ...
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy import ndarray

from ...kernels.compilation import compile_kernel

F = np.float32
ZERO, ONE, TWO, HALF = F(0), F(1), F(2), F(0.5)
NEAR, FAR, EPS2D, MIN_ALPHA = F(0.01), F(1e10), F(0.3), F(1 / 255)
INFINITY = F(math.inf)

# Non-finite splats are dropped here, so these kernels must not assume finite values.
FAST_MATH = ("contract", "nsz", "arcp", "reassoc")


@njit(inline="always")
def _footprint(
    means: ndarray, quats: ndarray, scales: ndarray, i: int, camera: tuple, W: int, H: int
) -> tuple:
    """Everything between splat i and its 2-D covariance; see the legend."""
    R00, R01, R02, R10, R11, R12, R20, R21, R22, t0, t1, t2, fx, fy, cx, cy = camera
    wx, wy, wz = means[i, 0], means[i, 1], means[i, 2]
    x = R00 * wx + R01 * wy + R02 * wz + t0
    y = R10 * wx + R11 * wy + R12 * wz + t1
    z = R20 * wx + R21 * wy + R22 * wz + t2
    inv_z = ONE / z
    margin_x, margin_y = F(0.15) * F(W) / fx, F(0.15) * F(H) / fy
    u = min(max(x * inv_z, -(cx / fx + margin_x)), (F(W) - cx) / fx + margin_x)
    v = min(max(y * inv_z, -(cy / fy + margin_y)), (F(H) - cy) / fy + margin_y)
    f, g = fx * inv_z, fy * inv_z
    a0, a1, a2 = f * (R00 - u * R20), f * (R01 - u * R21), f * (R02 - u * R22)
    b0, b1, b2 = g * (R10 - v * R20), g * (R11 - v * R21), g * (R12 - v * R22)

    w, i_, j_, k_ = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
    inv_norm = ONE / math.sqrt(w * w + i_ * i_ + j_ * j_ + k_ * k_)
    w, i_, j_, k_ = w * inv_norm, i_ * inv_norm, j_ * inv_norm, k_ * inv_norm
    r00, r11 = ONE - TWO * (j_ * j_ + k_ * k_), ONE - TWO * (i_ * i_ + k_ * k_)
    r22 = ONE - TWO * (i_ * i_ + j_ * j_)
    r01, r10 = TWO * (i_ * j_ - w * k_), TWO * (i_ * j_ + w * k_)
    r02, r20 = TWO * (i_ * k_ + w * j_), TWO * (i_ * k_ - w * j_)
    r12, r21 = TWO * (j_ * k_ - w * i_), TWO * (j_ * k_ + w * i_)
    s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]

    p0, q0 = s0 * (a0 * r00 + a1 * r10 + a2 * r20), s0 * (b0 * r00 + b1 * r10 + b2 * r20)
    p1, q1 = s1 * (a0 * r01 + a1 * r11 + a2 * r21), s1 * (b0 * r01 + b1 * r11 + b2 * r21)
    p2, q2 = s2 * (a0 * r02 + a1 * r12 + a2 * r22), s2 * (b0 * r02 + b1 * r12 + b2 * r22)
    A = p0 * p0 + p1 * p1 + p2 * p2 + EPS2D
    B = p0 * q0 + p1 * q1 + p2 * q2
    C = q0 * q0 + q1 * q1 + q2 * q2 + EPS2D
    return (
        (x, y, z, inv_z, u, v),
        (a0, a1, a2, b0, b1, b2),
        (w, i_, j_, k_, inv_norm),
        (r00, r01, r02, r10, r11, r12, r20, r21, r22),
        (p0, p1, p2, q0, q1, q2),
        (A, B, C),
    )


@compile_kernel(fastmath=FAST_MATH)
def project_forward(
    splats: tuple, camera: tuple, W: int, H: int, start: int, stop: int, projection: tuple
) -> None:
    """Fills the rows start..stop of means2d [N,2], conics [N,3], depths [N], extents [N,2].

    The extents are half the box around the ellipse where alpha reaches 1/255; 0 drops the splat:
    out of sight, too transparent, or non-finite.
    """
    means, quats, scales, opacities, colors = splats
    means2d, conics, depths, extents = projection
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    for i in range(start, stop):
        point, _, _, _, _, (A, B, C) = _footprint(means, quats, scales, i, camera, W, H)
        x, y, z, inv_z, _, _ = point
        det = A * C - B * B
        mx, my = fx * x * inv_z + cx, fy * y * inv_z + cy
        opacity = opacities[i]
        reach = math.sqrt(TWO * math.log(max(opacity * F(255), ONE)))
        ex, ey = reach * math.sqrt(A), reach * math.sqrt(C)
        total = mx + my + z + det + ex + ey + colors[i, 0] + colors[i, 1] + colors[i, 2]
        # Not `math.isfinite`: numba asks whether x - x is a number, and "reassoc" makes that 0.
        visible = (abs(total) < INFINITY) & (z > NEAR) & (z < FAR) & (det > ZERO)
        visible &= (opacity >= MIN_ALPHA) & (ex > ZERO)
        visible &= (mx + ex > ZERO) & (mx - ex < F(W)) & (my + ey > ZERO) & (my - ey < F(H))
        means2d[i, 0], means2d[i, 1], depths[i] = mx, my, z
        conics[i, 0], conics[i, 1], conics[i, 2] = C / det, -B / det, A / det
        extents[i, 0], extents[i, 1] = (ex, ey) if visible else (ZERO, ZERO)


@njit(inline="always")
def _covariance_gradient(A: float, B: float, C: float, d_conics: ndarray, i: int) -> tuple:
    """(dA, dB, dC): d(X^-1) = -X^-1 dX X^-1, with the conic (ca, cb; cb, cc) as the inverse."""
    inv_det = ONE / (A * C - B * B)
    ca, cb, cc = C * inv_det, -B * inv_det, A * inv_det
    ga, gb, gc = d_conics[i, 0], HALF * d_conics[i, 1], d_conics[i, 2]
    t00, t01 = ca * ga + cb * gb, ca * gb + cb * gc
    t10, t11 = cb * ga + cc * gb, cb * gb + cc * gc
    return (
        -(t00 * ca + t01 * cb),
        -TWO * (t00 * cb + t01 * cc),
        -(t10 * cb + t11 * cc),
    )


@njit(inline="always")
def _quat_gradient(quat: tuple, d_rotation: tuple) -> tuple:
    """By the quaternion: first as if of any length, then without the part along itself."""
    w, i_, j_, k_, inv_norm = quat
    n00, n01, n02, n10, n11, n12, n20, n21, n22 = d_rotation
    dw = TWO * (i_ * (n21 - n12) + j_ * (n02 - n20) + k_ * (n10 - n01))
    di = TWO * (j_ * (n01 + n10) + k_ * (n02 + n20) + w * (n21 - n12))
    dj = TWO * (i_ * (n01 + n10) + k_ * (n12 + n21) + w * (n02 - n20))
    dk = TWO * (i_ * (n02 + n20) + j_ * (n12 + n21) + w * (n10 - n01))
    di -= F(4) * i_ * (n11 + n22)
    dj -= F(4) * j_ * (n00 + n22)
    dk -= F(4) * k_ * (n00 + n11)
    along = dw * w + di * i_ + dj * j_ + dk * k_
    return (
        (dw - along * w) * inv_norm,
        (di - along * i_) * inv_norm,
        (dj - along * j_) * inv_norm,
        (dk - along * k_) * inv_norm,
    )


@compile_kernel(fastmath=FAST_MATH)
def project_backward(
    splats: tuple,
    camera: tuple,
    W: int,
    H: int,
    start: int,
    stop: int,
    extents: ndarray,
    upstream: tuple,
    gradients: tuple,
) -> None:
    """Adds the gradients by means, quats and scales of the splats start..stop."""
    means, quats, scales, _, _ = splats
    d_means2d, d_conics = upstream
    d_means, d_quats, d_scales = gradients
    R00, R01, R02, R10, R11, R12, R20, R21, R22, _, _, _, fx, fy, _, _ = camera
    for i in range(start, stop):
        if extents[i, 0] == ZERO:
            continue
        point, rows, quat, rotation, factors, (A, B, C) = _footprint(
            means, quats, scales, i, camera, W, H
        )
        x, y, _, inv_z, u, v = point
        a0, a1, a2, b0, b1, b2 = rows
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation
        p0, p1, p2, q0, q1, q2 = factors
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]

        dA, dB, dC = _covariance_gradient(A, B, C, d_conics, i)

        # The factors p = a M, q = b M, with M = r diag(s).
        dp0, dq0 = TWO * dA * p0 + dB * q0, TWO * dC * q0 + dB * p0
        dp1, dq1 = TWO * dA * p1 + dB * q1, TWO * dC * q1 + dB * p1
        dp2, dq2 = TWO * dA * p2 + dB * q2, TWO * dC * q2 + dB * p2
        n00, n01, n02 = a0 * dp0 + b0 * dq0, a0 * dp1 + b0 * dq1, a0 * dp2 + b0 * dq2
        n10, n11, n12 = a1 * dp0 + b1 * dq0, a1 * dp1 + b1 * dq1, a1 * dp2 + b1 * dq2
        n20, n21, n22 = a2 * dp0 + b2 * dq0, a2 * dp1 + b2 * dq1, a2 * dp2 + b2 * dq2
        d_scales[i, 0] += n00 * r00 + n10 * r10 + n20 * r20
        d_scales[i, 1] += n01 * r01 + n11 * r11 + n21 * r21
        d_scales[i, 2] += n02 * r02 + n12 * r12 + n22 * r22
        dp0, dp1, dp2, dq0, dq1, dq2 = s0 * dp0, s1 * dp1, s2 * dp2, s0 * dq0, s1 * dq1, s2 * dq2
        da0, db0 = r00 * dp0 + r01 * dp1 + r02 * dp2, r00 * dq0 + r01 * dq1 + r02 * dq2
        da1, db1 = r10 * dp0 + r11 * dp1 + r12 * dp2, r10 * dq0 + r11 * dq1 + r12 * dq2
        da2, db2 = r20 * dp0 + r21 * dp1 + r22 * dp2, r20 * dq0 + r21 * dq1 + r22 * dq2

        n00, n10, n20 = n00 * s0, n10 * s0, n20 * s0
        n01, n11, n21 = n01 * s1, n11 * s1, n21 * s1
        n02, n12, n22 = n02 * s2, n12 * s2, n22 * s2
        dw, di, dj, dk = _quat_gradient(quat, (n00, n01, n02, n10, n11, n12, n20, n21, n22))
        d_quats[i, 0] += dw
        d_quats[i, 1] += di
        d_quats[i, 2] += dj
        d_quats[i, 3] += dk

        # The centre, through the image position and through J; the clamp passes no gradient.
        f, g = fx * inv_z, fy * inv_z
        du = -f * (R20 * da0 + R21 * da1 + R22 * da2) if u == x * inv_z else ZERO
        dv = -g * (R20 * db0 + R21 * db1 + R22 * db2) if v == y * inv_z else ZERO
        du, dv = d_means2d[i, 0] * fx + du, d_means2d[i, 1] * fy + dv
        dz = a0 * da0 + a1 * da1 + a2 * da2 + b0 * db0 + b1 * db1 + b2 * db2
        dz = -inv_z * (dz + inv_z * (du * x + dv * y))
        dx, dy = du * inv_z, dv * inv_z
        d_means[i, 0] += R00 * dx + R10 * dy + R20 * dz
        d_means[i, 1] += R01 * dx + R11 * dy + R21 * dz
        d_means[i, 2] += R02 * dx + R12 * dy + R22 * dz
