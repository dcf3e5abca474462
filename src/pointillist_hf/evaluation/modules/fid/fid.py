# SPDX-License-Identifier: Apache-2.0
"""FID and KID of two sets of pictures."""

import torch

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.metrics.frechet as frechet
import pointillist_hf.evaluation.metrics.inception as inception


class Fid(base.PictureMetric):
    """FID and KID of two sets of pictures."""

    about = "Frechet distance of Inception features of 2015, clean resizing; with KID, and FID@N."
    reference_url = "https://arxiv.org/abs/1706.08500"

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load`."""
        return ("weights",)

    def open(self) -> object:
        """The network."""
        return inception.InceptionFeatures.read(self.given.get("weights"))

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""
        made, real = (
            torch.cat([inception.inception_features(one[None], self.network) for one in pictures])
            for pictures in (images, targets)
        )
        return {
            "fid": frechet.frechet_distance(made, real),
            "kid": frechet.kernel_distance(made, real),
            "real_floor": frechet.real_floor(real),
            "num_pictures": len(made),
        }
