# SPDX-License-Identifier: Apache-2.0
"""Captures to bound splats, and those to canonical points."""
