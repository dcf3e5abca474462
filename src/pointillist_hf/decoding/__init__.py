# SPDX-License-Identifier: Apache-2.0
"""Floor 3: how a trained generator writes a cloud: grammar, sampling, engines, streamers."""
