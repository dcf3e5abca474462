# SPDX-License-Identifier: Apache-2.0
"""The decoding engine on the CPU: kernels that numba compiles, near the speed of memory."""
