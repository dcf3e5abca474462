# SPDX-License-Identifier: Apache-2.0
"""What a population is drawn from: sRGB palettes, probabilities, and how they depend on each other.

Probabilities are relative: a table is normalised when it is drawn from.
"""

from __future__ import annotations

# From light to dark: colour, probability.
SKIN_TONES = (
    ((0.95, 0.80, 0.72), 0.13),
    ((0.91, 0.73, 0.63), 0.20),
    ((0.87, 0.67, 0.55), 0.20),
    ((0.78, 0.57, 0.44), 0.17),
    ((0.64, 0.44, 0.32), 0.12),
    ((0.50, 0.33, 0.24), 0.10),
    ((0.38, 0.25, 0.18), 0.08),
)
FIRST_DARK_TONE = 4  # from here on hair and eyes are dark, lips brown
LAST_FRECKLED_TONE = 2

HAIR_COLORS = {
    "black": (0.075, 0.062, 0.058),
    "darkbrown": (0.16, 0.105, 0.075),
    "brown": (0.29, 0.19, 0.12),
    "auburn": (0.38, 0.17, 0.09),
    "blonde": (0.74, 0.57, 0.34),
    "darkblonde": (0.52, 0.38, 0.22),
    "grey": (0.56, 0.55, 0.54),
    "white": (0.82, 0.81, 0.79),
    "red": (0.58, 0.24, 0.10),
}
HAIR_COLOR_ODDS = {
    "black": 0.16,
    "darkbrown": 0.22,
    "brown": 0.20,
    "auburn": 0.07,
    "blonde": 0.11,
    "darkblonde": 0.10,
    "grey": 0.06,
    "white": 0.03,
    "red": 0.05,
}
DARK_HAIR_COLOR_ODDS = {"black": 0.7, "darkbrown": 0.3}
AGED_HAIR_COLORS = ("grey", "white")
# Brows of these would vanish on the skin.
BROW_COLORS = {"blonde": "darkblonde", "white": "grey"}

IRIS_COLORS = {
    "brown": (0.30, 0.19, 0.10),
    "darkbrown": (0.22, 0.13, 0.07),
    "hazel": (0.42, 0.30, 0.14),
    "green": (0.30, 0.42, 0.26),
    "blue": (0.32, 0.46, 0.58),
    "grey": (0.45, 0.52, 0.56),
}
IRIS_ODDS = {
    "brown": 0.28,
    "darkbrown": 0.24,
    "hazel": 0.14,
    "green": 0.12,
    "blue": 0.14,
    "grey": 0.08,
}
DARK_IRIS_ODDS = {"brown": 0.5, "darkbrown": 0.5}

LIGHT_LIP, DARK_LIP = (0.80, 0.47, 0.46), (0.62, 0.36, 0.34)
LIPSTICKS = ((0.72, 0.20, 0.25), (0.78, 0.35, 0.40), (0.60, 0.20, 0.28))

CLOTH_COLORS = (
    (0.20, 0.26, 0.42),
    (0.62, 0.16, 0.17),
    (0.86, 0.86, 0.84),
    (0.10, 0.10, 0.12),
    (0.20, 0.42, 0.34),
    (0.72, 0.55, 0.22),
    (0.45, 0.32, 0.50),
    (0.36, 0.46, 0.55),
    (0.80, 0.52, 0.46),
)

FEMININE_HAIR_ODDS = {
    "long": 0.26,
    "ponytail": 0.19,
    "bob": 0.18,
    "bun": 0.09,
    "curly": 0.09,
    "braids": 0.06,
    "sidepart": 0.05,
    "short": 0.05,
    "afro": 0.03,
}
MASCULINE_HAIR_ODDS = {
    "short": 0.26,
    "crop": 0.20,
    "sidepart": 0.20,
    "buzz": 0.13,
    "bald": 0.11,
    "curly": 0.04,
    "long": 0.03,
    "afro": 0.03,
}
STYLES_WITH_BANGS = ("bob", "long", "ponytail")
SCALP_TINTS = {"bald": 0.06, "buzz": 0.62}
DEFAULT_SCALP_TINT = 0.80

BEARD_ODDS = {"full": 0.30, "stubble": 0.28, "goatee": 0.17, "moustache": 0.13, "long": 0.12}
BEARD_TINTS = {"full": 0.45, "stubble": 0.30, "goatee": 0.0, "moustache": 0.0, "long": 0.50}

# Mean of the feminine identities, in standard deviations; the masculine mean is a quarter of it,
# to the other side.
FEMININE_SHAPE = {
    "head_size": -0.7,
    "jaw_width": -1.1,
    "gonial_angle": -0.7,
    "chin_width": -0.9,
    "chin_height": -0.5,
    "brow_ridge": -1.2,
    "brow_height": 0.7,
    "eye_size": 0.8,
    "eye_openness": 0.6,
    "nose_length": -0.6,
    "nose_width": -0.6,
    "nose_protrusion": -0.5,
    "nose_hump": -0.5,
    "nose_tip_up": 0.6,
    "upper_lip_fullness": 0.8,
    "lower_lip_fullness": 0.8,
    "mouth_width": -0.3,
    "neck_width": -1.3,
    "shoulder_width": -1.2,
    "shoulder_slope": 0.5,
    "forehead_bulge": 0.6,
    "cheek_fullness": 0.3,
    "nose_bridge_width": -0.4,
    "ear_size": -0.6,
}
SUBTLE_SHAPES = ("asym_nose", "asym_jaw", "asym_face")  # drawn narrower than the others
LIMITED_SHAPES = {"eye_size": 1.4, "eye_openness": 1.4}  # beyond it the lids no longer close
# Sums of coefficients that must not fall below a minimum, and the coefficient that makes up for it.
# Beyond them skin folds over: between brow and lid, where the eye would bulge out in front of the
# brow, and between lower lip and chin. The shares were fitted to the faces that turn over.
JOINT_LIMITS = (
    (
        "brow_ridge",
        -3.8,
        {"brow_ridge": 1.0, "brow_height": 0.6, "eye_size": -0.7, "eye_depth": 0.6,
         "head_size": 0.5, "eye_height": -0.4},
    ),
    ("chin_height", -2.55, {"chin_height": 1.0, "lower_lip_fullness": -0.55}),
)  # fmt: skip

# Accessories. The shares are probabilities; earrings belong to ears that the hair leaves free.
GLASSES_SHARE = 0.18
EARRINGS_SHARE = {"feminine": 0.55, "masculine": 0.06}
STYLES_WITH_FREE_EARS = (
    "bald", "buzz", "short", "crop", "sidepart", "afro", "ponytail", "bun", "braids",
)  # fmt: skip
SUNGLASSES_SHARE = 0.15  # of the glasses
FRAME_ODDS = {
    "rectangle": 0.26,
    "round": 0.20,
    "square": 0.20,
    "oval": 0.14,
    "aviator": 0.12,
    "cat_eye": 0.08,
}
METAL_FRAME_ODDS = {  # of either material; the rest is plastic
    "rectangle": 0.35,
    "round": 0.60,
    "square": 0.10,
    "oval": 0.60,
    "aviator": 0.90,
    "cat_eye": 0.0,
}
PLASTIC_COLORS = (
    (0.04, 0.04, 0.045),
    (0.04, 0.04, 0.045),
    (0.22, 0.11, 0.05),
    (0.34, 0.19, 0.09),
    (0.10, 0.15, 0.30),
    (0.38, 0.06, 0.08),
    (0.45, 0.45, 0.47),
)
METAL_COLORS = ((0.80, 0.62, 0.28), (0.70, 0.71, 0.73), (0.20, 0.20, 0.21))
SUNGLASS_TINTS = ((0.03, 0.03, 0.035), (0.12, 0.07, 0.04), (0.05, 0.08, 0.06))
EARRING_ODDS = {"stud": 0.45, "hoop": 0.30, "drop": 0.25}
EARRING_METALS = ((0.85, 0.66, 0.30), (0.80, 0.81, 0.83))
EARRING_STONES = ((0.93, 0.91, 0.87), (0.10, 0.25, 0.50), (0.55, 0.07, 0.12), (0.06, 0.36, 0.22))
