# SPDX-License-Identifier: Apache-2.0
"""Floor 7: how good the avatars are."""
