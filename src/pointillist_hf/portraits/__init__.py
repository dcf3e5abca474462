# SPDX-License-Identifier: Apache-2.0
"""Floor 2: one photograph: reading, finding the face, matte, framing. The home of OpenCV."""
