# SPDX-License-Identifier: Apache-2.0
"""Captures: pictures of one person from tracked cameras, on disk in VHAP's layout."""

from .reading import read_capture

__all__ = ["read_capture"]
