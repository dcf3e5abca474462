# SPDX-License-Identifier: Apache-2.0
"""Floor 9: how good the avatars are."""
