# SPDX-License-Identifier: Apache-2.0
"""A linear head rig without outside data: sculpted, meshed and rigged from the tables in here.

Inside this package lengths are centimetres, x points to the subject's left, y up and z out of the
face. Only `arrays.build_head_arrays` hands out metres.
"""
