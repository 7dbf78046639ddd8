"""The numbers in the LIF equations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LIFConstants:
    """Constants of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t`` and its surrogate gradient.

    Attributes:
        decay: of the potential.
        threshold: which it must exceed.
        centre: of the surrogate gradient's window, less the threshold.
        width: of the window, and one over its height.
    """

    decay: float
    threshold: float
    centre: float
    width: float
