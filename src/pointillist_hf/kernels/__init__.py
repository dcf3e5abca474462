# SPDX-License-Identifier: Apache-2.0
"""Floor 0: how numba compiles the kernels of the package, and when; without torch."""
