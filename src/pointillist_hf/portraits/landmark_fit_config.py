# SPDX-License-Identifier: Apache-2.0
"""How landmarks are weighed against each other and against what heads usually look like."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LandmarkFitConfig:
    """Weights of the residuals, in distances between the outer corners of the eyes.

    A prior of strength s adds (s * coefficient)^2 to the squared residuals.

    Args:
        num_iterations: Gauss-Newton steps.
        num_pose_iterations: Steps at the start that move the head and leave its shape alone.
        camera_distance: From the camera to the head, metres. A photograph does not tell it.
        outlier_scale: Residual at which a landmark counts half (Cauchy's weights).
        depth_weight: Of the detected depths, relative to what is seen in the image.
        pupil_weight: Of the irises' centres.
        outline_weight: Of the landmarks on the outline of the face.
        outline_reach: Landmarks further from the rig's outline say nothing.
        shape_prior: Of the identity coefficients.
        expression_prior: Of the expression coefficients.
        jaw_pitch_prior: Of the opening of the mouth, per radian.
        jaw_yaw_prior: Of the jaw's turn to the side, per radian.
        gaze_prior: Of the direction of the eyes, per radian.
        distance_prior: Of the head's shift along the view, per metre.
        max_betas: Identity coefficients that are fitted; those after them stay zero.
        max_expressions: Expression coefficients that are fitted; those after them stay zero.
        beta_limit: Largest size of an identity coefficient.
        jaw_pitch_range: Radians.
        jaw_yaw_limit: Radians to either side.
        gaze_limit: Radians in each direction.
    """

    num_iterations: int = 12
    num_pose_iterations: int = 3
    camera_distance: float = 1.2

    outlier_scale: float = 0.05
    depth_weight: float = 0.15
    pupil_weight: float = 1.5
    outline_weight: float = 1.0
    outline_reach: float = 0.35

    shape_prior: float = 0.08
    expression_prior: float = 0.14
    jaw_pitch_prior: float = 0.15
    jaw_yaw_prior: float = 2.0
    gaze_prior: float = 0.02
    distance_prior: float = 0.3

    max_betas: int = 100
    max_expressions: int = 50
    beta_limit: float = 3.0
    jaw_pitch_range: tuple[float, float] = (-0.02, 0.5)
    jaw_yaw_limit: float = 0.2
    gaze_limit: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            values = getattr(self, field.name)
            is_range = field.name.endswith("_range")
            if is_range and not values[0] <= 0 <= values[1]:
                raise ValueError(f"`{field.name}` must hold zero, got {values}.")
            if not is_range and not 0 <= values < math.inf:
                raise ValueError(f"`{field.name}` must be finite and at least 0, got {values}.")
        for name in ("camera_distance", "outlier_scale", "num_iterations"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
