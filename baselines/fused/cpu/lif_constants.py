"""The constants of the LIF equations."""

from typing import NamedTuple

from baselines.fused.cpu.kernel import Array, Scalar


class LIFScalars(NamedTuple):
    """The constants as CPU kernels take them, in the dtype of their arrays.

    Attributes:
        decay: factor of the membrane potential per time step.
        threshold: potential above which a neuron fires.
        centre: centre of the surrogate gradient's window, relative to the threshold.
        half_width: half the width of the window.
        height: height of the window.
    """

    decay: Scalar
    threshold: Scalar
    centre: Scalar
    half_width: Scalar
    height: Scalar


class LIFConstants(NamedTuple):
    """Constants of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t`` and its surrogate gradient.

    Attributes:
        decay: factor of the membrane potential per time step.
        threshold: potential above which a neuron fires.
        centre: centre of the surrogate gradient's window, relative to the threshold.
        width: width of the window; one over its height.
    """

    decay: float
    threshold: float
    centre: float
    width: float

    def scalars(self, like: Array) -> LIFScalars:
        """Return the constants in the dtype of an array of any shape, ``(...)``."""
        constants = self.decay, self.threshold, self.centre, self.width / 2, 1 / self.width
        return LIFScalars(*(like.dtype.type(constant) for constant in constants))
