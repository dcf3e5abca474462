# SPDX-License-Identifier: Apache-2.0
"""Floor 8: losses and training loops. The home of accelerate."""
