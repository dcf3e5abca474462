# SPDX-License-Identifier: Apache-2.0
"""Floor 2: one photograph: the face in it, its landmarks, and what belongs to the person."""
