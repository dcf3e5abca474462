# SPDX-License-Identifier: Apache-2.0
"""Floor 6. The model that is taken where nobody names one; its id stands here and nowhere else."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

MODEL_ID = "pointillist-hf/pointillist-tiny"
# Of a checkout, whose package lies in src/.
EMBEDDED_FOLDER = Path(__file__).parents[2] / "model_cards" / MODEL_ID.split("/")[1]


def find_default_model() -> str:
    """The folder of a checkout, or the Hub's id of an installed package; the log says which."""
    is_checkout = (EMBEDDED_FOLDER / "model_index.json").is_file()
    source = str(EMBEDDED_FOLDER) if is_checkout else MODEL_ID
    logger.info("Model: %s, %s", source, "of this checkout" if is_checkout else "from the Hub")
    return source
