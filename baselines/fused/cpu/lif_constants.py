"""The constants of the LIF equations and of their surrogate gradients."""

import math
from typing import NamedTuple

import numpy as np

from baselines.fused.cpu.kernel import Array, Scalar
from bench.backend import Arctangent, NeuronSpec, Rectangle, Triangle, UnsupportedNeuronError

# Shapes of surrogate gradients, numbered for the kernels.
RECTANGLE, TRIANGLE, ARCTANGENT = range(3)


class LIFScalars(NamedTuple):
    """The constants as CPU kernels take them, in the dtype of their arrays.

    Attributes:
        decay: factor of the membrane potential per time step.
        threshold: potential above which a neuron fires.
        surrogate: RECTANGLE, TRIANGLE or ARCTANGENT.
        centre: centre of the surrogate gradient, relative to the threshold.
        half_width: distance from the centre; see :class:`LIFConstants`.
        height: surrogate gradient at its centre.
        reset_gradient: True if gradients flow through the reset.
    """

    decay: Scalar
    threshold: Scalar
    surrogate: int
    centre: Scalar
    half_width: Scalar
    height: Scalar
    reset_gradient: bool


class LIFConstants(NamedTuple):
    """Constants of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t`` and its surrogate gradient.

    Attributes:
        decay: factor of the membrane potential per time step.
        threshold: potential above which a neuron fires.
        surrogate: RECTANGLE, TRIANGLE or ARCTANGENT.
        centre: centre of the surrogate gradient, relative to the threshold.
        half_width: distance from the centre at which a rectangle or a triangle falls to 0, and an
            arctangent to half its height.
        width: one over the height; the width of a rectangle.
        reset_gradient: True if gradients flow through the reset.
        fires_at_threshold: True if a potential equal to the threshold fires.
    """

    decay: float
    threshold: float
    surrogate: int
    centre: float
    half_width: float
    width: float
    reset_gradient: bool
    fires_at_threshold: bool

    @classmethod
    def of(cls, spec: NeuronSpec) -> "LIFConstants":
        """Return the constants of a neuron.

        Raises:
            UnsupportedNeuronError: the kernels do not compute its surrogate gradient.
        """
        centre = 0.0
        match spec.surrogate:
            case Rectangle(middle, width):
                shape, centre, half_width = RECTANGLE, middle - spec.threshold, width / 2
            case Triangle(width):
                shape, half_width = TRIANGLE, width
            case Arctangent(alpha):
                shape, half_width, width = ARCTANGENT, 2 / (math.pi * alpha), 2 / alpha
            case other:
                raise UnsupportedNeuronError(
                    "fused has rectangular, triangular and arctangent surrogates only, no "
                    f"{type(other).__name__}"
                )
        return cls(
            decay=spec.decay,
            threshold=spec.threshold,
            surrogate=shape,
            centre=centre,
            half_width=half_width,
            width=width,
            reset_gradient=spec.reset_gradient,
            fires_at_threshold=spec.fires_at_threshold,
        )

    def exclusive_threshold(self, number: type[np.floating]) -> Scalar:
        """Return the number above which potentials of a type of number fire.

        It is the threshold, or the number before it if a potential equal to the threshold fires.
        """
        threshold = number(self.threshold)
        return np.nextafter(threshold, number(-np.inf)) if self.fires_at_threshold else threshold

    def scalars(self, like: Array) -> LIFScalars:
        """Return the constants in the dtype of an array of any shape, ``(...)``."""
        number = like.dtype.type
        return LIFScalars(
            decay=number(self.decay),
            threshold=self.exclusive_threshold(number),
            surrogate=self.surrogate,
            centre=number(self.centre),
            half_width=number(self.half_width),
            height=number(1 / self.width),
            reset_gradient=self.reset_gradient,
        )
