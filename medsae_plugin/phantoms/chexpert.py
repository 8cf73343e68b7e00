"""How often CheXpert's training split states each observation, and which it states together.

Counted over the 223,414 rows of train.csv (CheXpert-v1.0-small; Irvin et al. 2019, arXiv 1901.07031): an observation is
stated where its label is 1, uncertain where it is -1.
"""

import numpy as np

from medsae_plugin.observations import OBSERVATIONS

ROWS = 223_414

# Rows that state the observation, and rows that are uncertain of it.
_COUNTS = {
    "No Finding": (22_381, 0),
    "Enlarged Cardiomediastinum": (10_798, 12_403),
    "Cardiomegaly": (27_000, 8_087),
    "Lung Opacity": (105_581, 5_598),
    "Lung Lesion": (9_186, 1_488),
    "Edema": (52_246, 12_984),
    "Consolidation": (14_783, 27_742),
    "Pneumonia": (6_039, 18_770),
    "Atelectasis": (33_376, 33_739),
    "Pneumothorax": (19_448, 3_145),
    "Pleural Effusion": (86_187, 11_628),
    "Pleural Other": (3_523, 2_653),
    "Fracture": (9_040, 642),
    "Support Devices": (116_001, 1_079),
}

STATED = {name: stated / ROWS for name, (stated, _) in _COUNTS.items()}
UNCERTAIN = {name: uncertain / ROWS for name, (_, uncertain) in _COUNTS.items()}

# Phi coefficients (correlations of what is stated) of each observation, in CheXpert's order, with those before it.
_BELOW: tuple[tuple[float, ...], ...] = (
    (),
    (-0.075,),
    (-0.124, 0.038),
    (-0.316, 0.0, 0.008),
    (-0.069, 0.007, -0.034, 0.044),
    (-0.184, -0.02, 0.173, 0.059, -0.068),
    (-0.089, -0.011, -0.019, -0.051, 0.013, -0.013),
    (-0.056, -0.018, -0.02, 0.065, 0.029, -0.014, 0.068),
    (-0.14, -0.007, -0.008, -0.041, -0.022, 0.031, -0.01, -0.022),
    (-0.103, -0.012, -0.077, -0.004, 0.005, -0.115, -0.035, -0.037, 0.01),
    (-0.264, -0.012, 0.04, 0.211, -0.013, 0.138, 0.063, -0.034, 0.088, -0.026),
    (-0.042, 0.004, -0.011, 0.015, 0.03, -0.044, 0.01, 0.006, -0.014, -0.007, -0.032),
    (-0.069, 0.021, -0.02, -0.03, -0.003, -0.059, -0.018, -0.014, -0.004, 0.021, -0.048, 0.028),
    (-0.084, 0.0, 0.042, 0.117, -0.07, 0.135, 0.002, -0.076, 0.071, 0.05, 0.149, -0.034, -0.048),
)


def _phi() -> np.ndarray:
    phi = np.eye(len(OBSERVATIONS))
    for i, row in enumerate(_BELOW):
        phi[i, :i] = phi[:i, i] = row
    return phi


PHI = _phi()
"""(14, 14) float64, symmetric, in the order of `OBSERVATIONS`."""
