# SPDX-License-Identifier: Apache-2.0
"""AKD by MediaPipe's 478 landmarks, which come in place of the pictures."""

import datasets
import torch

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.face_reading as face_reading
import pointillist_hf.evaluation.metrics.keypoints as keypoints

INPUTS = """
Args:
    predictions: Landmarks of pictures that a system made, pixels; NaN without a face. [478, 3]
    references: Those of the pictures to compare them with, one for each.
Returns:
    `akd`, the mean over pictures; `values`, each picture's; `num_missed`, how many have none.
"""


class Akd(base.PictureMetric):
    """AKD by MediaPipe's 478 landmarks."""

    about = (
        "Mean distance of MediaPipe's 478 landmarks, pixels at 512 x 512, of the faces found. "
        "MediaPipe runs elsewhere, by examples/extract_landmarks.py; here come its landmarks."
    )
    inputs = INPUTS
    reference_url = "https://arxiv.org/abs/2006.10962"

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load`."""
        return ("size",)

    @staticmethod
    def feature() -> object:
        """Landmarks of a picture; NaN where there is no face."""
        return datasets.Array2D((face_reading.NUM_REFINED, 3), "float32")

    def _compute(self, predictions: list, references: list) -> dict[str, object]:
        size = self.given.get("size", keypoints.REFERENCE_SIZE)

        def compare(points: object, targets: object) -> object:
            return keypoints.keypoint_distance(points, targets, (size, size))

        own, other = (
            [torch.tensor(one, dtype=torch.float32) for one in points]
            for points in (predictions, references)
        )
        return base.each("akd", compare, own, other)
