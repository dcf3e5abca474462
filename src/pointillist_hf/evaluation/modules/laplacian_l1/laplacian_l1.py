# SPDX-License-Identifier: Apache-2.0
"""L1 of Laplacian pyramids."""

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.metrics.pixels as pixels


class LaplacianL1(base.PictureMetric):
    """L1 of Laplacian pyramids."""

    about = "Mean absolute difference of Laplacian pyramids. Needs no weights; it is not LPIPS."
    reference_url = ""

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""
        return base.each("laplacian_l1", pixels.laplacian_l1, images, targets)
