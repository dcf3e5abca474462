# SPDX-License-Identifier: Apache-2.0
"""Floor 0: how numba compiles the kernels, and when; nearest points. All without torch."""
