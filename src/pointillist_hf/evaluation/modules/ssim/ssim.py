# SPDX-License-Identifier: Apache-2.0
"""Structural similarity."""

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.metrics.pixels as pixels


class Ssim(base.PictureMetric):
    """Structural similarity."""

    about = (
        "Structural similarity of RGB pictures, Gaussian windows of 11 pixels within the picture."
    )
    reference_url = "https://doi.org/10.1109/TIP.2003.819861"

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""
        return base.each("ssim", pixels.ssim, images, targets)
