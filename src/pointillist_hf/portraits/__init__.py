# SPDX-License-Identifier: Apache-2.0
"""Floor 2: what is found in one photograph of a head."""
