# SPDX-License-Identifier: Apache-2.0
"""Floor 5. What the photograph still knows: projection, completion, colours, optimisation."""
