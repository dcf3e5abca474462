# SPDX-License-Identifier: Apache-2.0
"""Floor 10. A page on which a photograph becomes an avatar, for a browser and for a Space."""
