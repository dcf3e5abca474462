# SPDX-License-Identifier: Apache-2.0
"""Floor 7: people, captures, fits and the data sets made of them."""
