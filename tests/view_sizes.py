# SPDX-License-Identifier: Apache-2.0
"""Sides of the frames in which tests look at photographs, pixels."""

LARGE = 256
