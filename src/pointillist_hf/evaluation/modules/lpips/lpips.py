# SPDX-License-Identifier: Apache-2.0
"""LPIPS on AlexNet, version 0.1."""

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.metrics.lpips as perceptual


class Lpips(base.PictureMetric):
    """LPIPS on AlexNet, version 0.1."""

    about = "Distance of deep features, LPIPS 0.1 on AlexNet. Needs torchvision's AlexNet."
    reference_url = "https://arxiv.org/abs/1801.03924"

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load`."""
        return ("weights",)

    def open(self) -> object:
        """The network."""
        return perceptual.LpipsNetwork.read(trunk_path=self.given.get("weights"))

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""

        def compare(image: object, target: object) -> object:
            return perceptual.lpips(image, target, self.network)

        return base.each("lpips", compare, images, targets)
