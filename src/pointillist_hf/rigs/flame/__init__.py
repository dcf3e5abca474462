# SPDX-License-Identifier: Apache-2.0
"""The user's own FLAME files: read safely, checked, completed with teeth."""
