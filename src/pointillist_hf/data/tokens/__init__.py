# SPDX-License-Identifier: Apache-2.0
"""Tokenised people: rows, and the data sets that hold them."""
