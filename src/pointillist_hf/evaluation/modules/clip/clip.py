# SPDX-License-Identifier: Apache-2.0
"""Cosine of CLIP embeddings of two pictures."""

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.metrics.clip as clip


class Clip(base.PictureMetric):
    """Cosine of CLIP embeddings of two pictures."""

    about = (
        "Cosine of the CLIP embeddings of two pictures; not CLIPScore, which compares with a text."
    )
    reference_url = "https://arxiv.org/abs/2103.00020"

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load`."""
        return ("weights",)

    def open(self) -> object:
        """The network."""
        return clip.load_clip(self.given.get("weights"))

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""

        def compare(image: object, target: object) -> object:
            first, second = (clip.clip_embeddings(one, self.network) for one in (image, target))
            return clip.clip_similarity(first, second)

        return base.each("clip", compare, images, targets)
