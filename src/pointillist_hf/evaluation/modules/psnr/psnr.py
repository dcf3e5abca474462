# SPDX-License-Identifier: Apache-2.0
"""Peak signal-to-noise ratio."""

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.metrics.pixels as pixels


class Psnr(base.PictureMetric):
    """Peak signal-to-noise ratio."""

    about = "Peak signal-to-noise ratio in dB, at most 100, of RGB pictures."
    reference_url = ""

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""
        return base.each("psnr", pixels.psnr, images, targets)
