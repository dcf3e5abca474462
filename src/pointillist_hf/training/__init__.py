# SPDX-License-Identifier: Apache-2.0
"""Floor 6: losses and training loops. The home of accelerate."""
