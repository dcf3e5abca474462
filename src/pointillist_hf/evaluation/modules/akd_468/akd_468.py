# SPDX-License-Identifier: Apache-2.0
"""AKD by 468 keypoints of this package's tracker."""

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.face_reading as face_reading
import pointillist_hf.evaluation.metrics.keypoints as keypoints


class Akd468(base.PictureMetric):
    """AKD by 468 keypoints of this package's tracker."""

    about = (
        "Mean distance of 468 keypoints, pixels at 512 x 512, of the faces found. Not "
        "the paper's AKD, whose points are MediaPipe's 478."
    )
    reference_url = ""

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load`."""
        return ("tracker",)

    def open(self) -> object:
        """What finds faces."""
        return face_reading.FaceReader.read(self.given.get("tracker"))

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""

        def compare(image: object, target: object) -> object:
            size = (image.shape[2], image.shape[1])
            own, other = (self.network(one[0])[None] for one in (image, target))
            return keypoints.keypoint_distance(own, other, size)

        return base.each("akd_468", compare, images, targets)
