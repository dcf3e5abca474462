# SPDX-License-Identifier: Apache-2.0
"""Distance of two faces by a recognition network."""

import torch

import pointillist_hf.evaluation.evaluate_metrics as base
import pointillist_hf.evaluation.face_reading as face_reading
import pointillist_hf.evaluation.face_recognition as face_recognition
import pointillist_hf.evaluation.likeness as likeness


class Likeness(base.PictureMetric):
    """Distance of two faces by a recognition network."""

    about = (
        "Distance of two faces by a recognition network: below .35 the same person, "
        "above .5 a stranger."
    )
    reference_url = ""

    @staticmethod
    def options() -> tuple[str, ...]:
        """Arguments of `evaluate.load`."""
        return ("tracker", "weights")

    def open(self) -> object:
        """What finds faces, and what recognises them."""
        file = face_recognition.RECOGNITION_FILE.find(self.given.get("weights"))
        network = face_recognition.FaceRecognitionNetwork.read(file, checksum=None)
        return face_reading.FaceReader.read(self.given.get("tracker")), network

    def embed(self, image: object) -> object:
        """The face's place; NaN where there is none. [128]"""
        reader, network = self.network
        marks = reader(image)
        if not marks.isfinite().all():
            return torch.full((128,), torch.nan)
        with torch.no_grad():
            return network(likeness.cut_face((255 * image).round().byte(), marks)[None])[0]

    def measure(self, images: list, targets: list) -> dict[str, object]:
        """The figures."""

        def compare(image: object, target: object) -> object:
            return torch.dist(self.embed(image[0]), self.embed(target[0]))

        return base.each("likeness", compare, images, targets)
