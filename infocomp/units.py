"""Nats, bits and bytes: the only place where the base of a logarithm changes.

Inside the package every information is in nats; everything that a user sees is in bits. One nat is 1/ln 2 bits.
"""

import math

BITS_PER_NAT = 1.0 / math.log(2.0)


def bits(nats: float) -> float:
    """Nats to bits."""
    return nats * BITS_PER_NAT


def efficiency(nats: float, bins: int) -> float:
    """Information as a share of the largest entropy that `bins` bins can hold, log m.

    Source: Conklin et al. (2026), arXiv 2604.07569: "efficiency" is H / log m, the same for mutual informations.
    """
    return nats / math.log(bins)
