# SPDX-License-Identifier: Apache-2.0
"""Floor 1: the animatable head mesh, and how points ride on it."""
