# SPDX-License-Identifier: Apache-2.0
"""Floor 2: the components that a pipeline joins, each with `from_pretrained`."""
