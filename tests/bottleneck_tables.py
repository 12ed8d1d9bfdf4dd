"""Joints with known bottleneck curves, as used by tests and by the oracle table; bits.

Points of dit's distribution are those of its own tests (dit_bottleneck at beta 2.5 and 10), the others of dit's and of
embo's four distributions were computed by an independent Blahut–Arimoto; closed forms are in
`infocomp.bottleneck.closed_forms`.
"""

import numpy as np

DIT = np.array([[0.2, 0, 0.2], [0, 0, 0.2], [0, 0.2, 0.2]])
EMBO_2X2 = np.array([[0.1, 0.4], [0.35, 0.15]])
EMBO_4X4 = np.array([[0.1, 0.1, 0, 0.1], [0.05, 0, 0.05, 0.1], [0.02, 0.03, 0.25, 0.1], [0.03, 0.02, 0, 0.05]])
EMBO_5X5 = np.array(
    [
        [0.03, 0.07, 0, 0.1, 0.1],
        [0.025, 0, 0.05, 0.1, 0],
        [0.02, 0, 0.05, 0.05, 0.05],
        [0.01, 0.02, 0, 0.05, 0.02],
        [0.025, 0.03, 0.1, 0.1, 0],
    ]
)
FLIP, ERASED = 0.1, 0.3
SYMMETRIC = np.array([[1 - FLIP, FLIP], [FLIP, 1 - FLIP]]) / 2
ERASURE = np.array([[1 - ERASED, ERASED, 0], [0, ERASED, 1 - ERASED]]) / 2
FUNCTION = np.array([[0.2, 0], [0.3, 0], [0, 0.1], [0, 0.4]])

# name, table, beta, I(X; T), I(T; Y), digits that the source gives
POINTS = [
    ("dit", DIT, 1.0, 0.0, 0.0, 7),
    ("dit", DIT, 2.5, 0.8, 0.4, 7),
    ("dit", DIT, 3.0, 0.8, 0.4, 7),
    ("dit", DIT, 5.0, 1.329841, 0.540560, 6),
    ("dit", DIT, 8.0, 1.49149, 0.56772, 5),
    ("dit", DIT, 10.0, 1.5129028, 0.5701614, 7),
    ("embo 2x2", EMBO_2X2, 3.0, 0.0, 0.0, 7),
    ("embo 2x2", EMBO_2X2, 5.0, 0.49689, 0.11349, 5),
    ("embo 2x2", EMBO_2X2, 8.0, 0.89819, 0.18069, 5),
    ("embo 2x2", EMBO_2X2, 10.0, 0.96195, 0.18793, 5),
    ("embo 4x4", EMBO_4X4, 3.0, 0.57362, 0.22674, 5),
    ("embo 4x4", EMBO_4X4, 5.0, 1.04108, 0.34822, 5),
    ("embo 4x4", EMBO_4X4, 8.0, 1.46221, 0.42039, 5),
    ("embo 4x4", EMBO_4X4, 10.0, 1.50058, 0.42477, 5),
    ("embo 5x5", EMBO_5X5, 5.0, 1.16328, 0.29610, 5),
    ("embo 5x5", EMBO_5X5, 8.0, 1.45289, 0.34895, 5),
    ("embo 5x5", EMBO_5X5, 10.0, 1.46636, 0.35047, 5),
    ("binary symmetric", SYMMETRIC, 1.5, 0.0, 0.0, 7),
    ("binary symmetric", SYMMETRIC, 1.6, 0.128723, 0.081446, 6),
    ("binary symmetric", SYMMETRIC, 2.0, 0.696433, 0.407234, 6),
    ("binary symmetric", SYMMETRIC, 3.0, 0.948951, 0.516595, 6),
    ("binary symmetric", SYMMETRIC, 5.0, 0.997837, 0.530616, 6),
    ("erasure", ERASURE, 1.4, 0.0, 0.0, 7),
    ("erasure", ERASURE, 1.5, 1.0, 1 - ERASED, 7),
    ("deterministic Y", FUNCTION, 0.9, 0.0, 0.0, 7),
    ("deterministic Y", FUNCTION, 1.1, 1.0, 1.0, 7),
]
# name, table, I(X; Y), H(X)
CONSTANTS = [
    ("dit", DIT, 0.5709506, 1.5219281),
    ("embo 2x2", EMBO_2X2, 0.191165, 1.0),
    ("embo 4x4", EMBO_4X4, 0.434019, 1.846439),
    ("embo 5x5", EMBO_5X5, 0.391031, 2.230635),
]
