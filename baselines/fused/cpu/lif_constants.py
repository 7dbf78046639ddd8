"""Constants of the LIF equations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LIFConstants:
    """Constants of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t`` and its surrogate gradient.

    Attributes:
        decay: factor of the potential per time step.
        threshold: potential above which a neuron spikes.
        centre: centre of the surrogate gradient's window, minus the threshold.
        width: width of the window; its height is ``1 / width``.
    """

    decay: float
    threshold: float
    centre: float
    width: float
