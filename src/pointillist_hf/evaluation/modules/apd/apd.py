# SPDX-License-Identifier: Apache-2.0
"""APD by 6DRepNet360."""

import torch

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.face_reading as face_reading
import pointillist_hf.evaluation.metrics.head_pose as head_pose


class Apd(base.PictureMetric):
    """APD by 6DRepNet360."""

    about = (
        "Mean absolute difference of pitch, yaw and roll, 1e-3 rad (the paper's unit is "
        "assumed), by 6DRepNet360 on the crop of the keypoints."
    )
    reference_url = "https://arxiv.org/abs/2309.07654"

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load`."""
        return ("tracker", "weights")

    def open(self) -> object:
        """What finds faces, and what reads their pose."""
        network = head_pose.HeadPoseNetwork.read(self.given.get("weights"))
        return face_reading.FaceReader.read(self.given.get("tracker")), network

    def rotation(self, image: object) -> object:
        """The pose of the face; NaN where there is none. [1, 3, 3]"""
        reader, network = self.network
        marks = reader(image)
        if not marks.isfinite().all():
            return torch.full((1, 3, 3), torch.nan)
        with torch.no_grad():
            return network(head_pose.cut_head(image, marks)[None])

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""

        def compare(image: object, target: object) -> object:
            return head_pose.pose_distance(self.rotation(image[0]), self.rotation(target[0]))

        return base.each("apd", compare, images, targets)
