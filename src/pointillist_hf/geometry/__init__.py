# SPDX-License-Identifier: Apache-2.0
"""Floor 0: records and pure maths. Nothing here knows a network, a file format or a renderer."""
