# SPDX-License-Identifier: Apache-2.0
"""Floor 2: file formats that other programs read."""
