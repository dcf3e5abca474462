# SPDX-License-Identifier: Apache-2.0
"""The metrics of Tables 1 and 2, and those beside them, as plain functions on tensors."""
