# SPDX-License-Identifier: Apache-2.0
"""Floor 2: how a rig is driven by what others recorded."""
