# SPDX-License-Identifier: Apache-2.0
"""Procedural people: who they are, what they wear, and the strands that grow on them."""
