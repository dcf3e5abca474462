# SPDX-License-Identifier: Apache-2.0
"""The rasteriser on the CPU: kernels that numba compiles, and how they are compiled."""
