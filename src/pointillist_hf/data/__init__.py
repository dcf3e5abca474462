# SPDX-License-Identifier: Apache-2.0
"""Floor 5: people, captures and the data sets made of them."""
