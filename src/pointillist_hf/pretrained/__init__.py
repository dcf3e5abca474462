# SPDX-License-Identifier: Apache-2.0
"""Weights of others, which users bring: how they are read, and what becomes of them here."""
