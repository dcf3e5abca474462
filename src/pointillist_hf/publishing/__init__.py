# SPDX-License-Identifier: Apache-2.0
"""What leaves the machine and under which terms: licences, cards, uploads, and downloads by id."""
