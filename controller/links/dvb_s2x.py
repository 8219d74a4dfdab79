"""The modulations and codes of DVB-S2X: what each carries, and what it asks of the link.

Sources: ETSI EN 302 307-1 V1.4.1 table 13 (DVB-S2) and ETSI EN 302 307-2 V1.2.1 table 20a (its extensions), normal
FECFRAME of 64,800 bits, no pilots, quasi error free over a linear channel with white noise, ideal demodulator: what a
real one loses belongs to a budget's `losses_db`. The frames for very low signals (below −2.85 dB) are left out. Copies
of an earlier edition of part 2 have 3.289502 for 32APSK 2/3-L and 4.933701 for 64APSK 5/6, which does not fit the codes
of part 1 that these two use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.timeline import FloatArray


@dataclass(frozen=True)
class Modcod:
    """A modulation and code: useful bits a symbol, and the energy a symbol over noise density at which it works."""

    name: str
    efficiency_bit_symbol: float
    es_n0_db: float


DVB_S2 = (
    Modcod("QPSK 1/4", 0.490243, -2.35),
    Modcod("QPSK 1/3", 0.656448, -1.24),
    Modcod("QPSK 2/5", 0.789412, -0.30),
    Modcod("QPSK 1/2", 0.988858, 1.00),
    Modcod("QPSK 3/5", 1.188304, 2.23),
    Modcod("QPSK 2/3", 1.322253, 3.10),
    Modcod("QPSK 3/4", 1.487473, 4.03),
    Modcod("QPSK 4/5", 1.587196, 4.68),
    Modcod("QPSK 5/6", 1.654663, 5.18),
    Modcod("QPSK 8/9", 1.766451, 6.20),
    Modcod("QPSK 9/10", 1.788612, 6.42),
    Modcod("8PSK 3/5", 1.779991, 5.50),
    Modcod("8PSK 2/3", 1.980636, 6.62),
    Modcod("8PSK 3/4", 2.228124, 7.91),
    Modcod("8PSK 5/6", 2.478562, 9.35),
    Modcod("8PSK 8/9", 2.646012, 10.69),
    Modcod("8PSK 9/10", 2.679207, 10.98),
    Modcod("16APSK 2/3", 2.637201, 8.97),
    Modcod("16APSK 3/4", 2.966728, 10.21),
    Modcod("16APSK 4/5", 3.165623, 11.03),
    Modcod("16APSK 5/6", 3.300184, 11.61),
    Modcod("16APSK 8/9", 3.523143, 12.89),
    Modcod("16APSK 9/10", 3.567342, 13.13),
    Modcod("32APSK 3/4", 3.703295, 12.73),
    Modcod("32APSK 4/5", 3.951571, 13.64),
    Modcod("32APSK 5/6", 4.119540, 14.28),
    Modcod("32APSK 8/9", 4.397854, 15.69),
    Modcod("32APSK 9/10", 4.453027, 16.05),
)

DVB_S2X = (
    Modcod("QPSK 2/9", 0.434841, -2.85),
    Modcod("QPSK 13/45", 0.567805, -2.03),
    Modcod("QPSK 9/20", 0.889135, 0.22),
    Modcod("QPSK 11/20", 1.088581, 1.45),
    Modcod("8APSK 5/9-L", 1.647211, 4.73),
    Modcod("8APSK 26/45-L", 1.713601, 5.13),
    Modcod("8PSK 23/36", 1.896173, 6.12),
    Modcod("8PSK 25/36", 2.062148, 7.02),
    Modcod("8PSK 13/18", 2.145136, 7.49),
    Modcod("16APSK 1/2-L", 1.972253, 5.97),
    Modcod("16APSK 8/15-L", 2.104850, 6.55),
    Modcod("16APSK 5/9-L", 2.193247, 6.84),
    Modcod("16APSK 26/45", 2.281645, 7.51),
    Modcod("16APSK 3/5", 2.370043, 7.80),
    Modcod("16APSK 3/5-L", 2.370043, 7.41),
    Modcod("16APSK 28/45", 2.458441, 8.10),
    Modcod("16APSK 23/36", 2.524739, 8.38),
    Modcod("16APSK 2/3-L", 2.635236, 8.43),
    Modcod("16APSK 25/36", 2.745734, 9.27),
    Modcod("16APSK 13/18", 2.856231, 9.71),
    Modcod("16APSK 7/9", 3.077225, 10.65),
    Modcod("16APSK 77/90", 3.386618, 11.99),
    Modcod("32APSK 2/3-L", 3.291954, 11.10),
    Modcod("32APSK 32/45", 3.510192, 11.75),
    Modcod("32APSK 11/15", 3.620536, 12.17),
    Modcod("32APSK 7/9", 3.841226, 13.05),
    Modcod("64APSK 32/45-L", 4.206428, 13.98),
    Modcod("64APSK 11/15", 4.338659, 14.81),
    Modcod("64APSK 7/9", 4.603122, 15.47),
    Modcod("64APSK 4/5", 4.735354, 15.87),
    Modcod("64APSK 5/6", 4.936639, 16.55),
    Modcod("128APSK 3/4", 5.163248, 17.73),
    Modcod("128APSK 7/9", 5.355556, 18.53),
    Modcod("256APSK 29/45-L", 5.065690, 16.98),
    Modcod("256APSK 2/3-L", 5.241514, 17.24),
    Modcod("256APSK 31/45-L", 5.417338, 18.10),
    Modcod("256APSK 32/45", 5.593162, 18.59),
    Modcod("256APSK 11/15-L", 5.768987, 18.84),
    Modcod("256APSK 3/4", 5.900855, 19.57),
)


def efficient(modcods: tuple[Modcod, ...]) -> tuple[Modcod, ...]:
    """Those worth choosing, in order of what they ask: each carries more than every one that asks no more than it."""
    chosen: list[Modcod] = []
    for modcod in sorted(modcods, key=lambda m: (m.es_n0_db, -m.efficiency_bit_symbol)):
        if not chosen or modcod.efficiency_bit_symbol > chosen[-1].efficiency_bit_symbol:
            chosen.append(modcod)
    return tuple(chosen)


EFFICIENT = efficient(DVB_S2 + DVB_S2X)
EFFICIENCY_BIT_SYMBOL: FloatArray = np.array([modcod.efficiency_bit_symbol for modcod in EFFICIENT])
"""What the efficient ones carry, rising. Shape (n_efficient,)."""
ES_N0_DB: FloatArray = np.array([modcod.es_n0_db for modcod in EFFICIENT])
"""What they ask, rising. Shape (n_efficient,)."""
