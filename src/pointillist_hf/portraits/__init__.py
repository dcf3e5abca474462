# SPDX-License-Identifier: Apache-2.0
"""Floor 2: one photograph: reading, the face in it, landmarks, matte, the rig fitted to it.

The home of OpenCV.
"""
