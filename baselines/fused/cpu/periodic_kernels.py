"""Compiled kernels on neurons that fire with a period.

A neuron at rest with the same current at each step first fires at some step p, is then at rest
again, and fires at each multiple of p. Synapses are linear, so their currents are sums over
periods: ``x_t = b + sum_{p | t} y_p``, where ``y_p`` sums the weights of the neurons of period p. A
neuron then takes part once, and not once per time step, and a silent one never.

Sizes: T time steps, N images, C input and O output channels, O a multiple of LANES. A period is in
1..T, or 0 for a silent neuron.
"""

from typing import NamedTuple

import numba
import numpy as np

from baselines.fused.cpu.bfloat16 import to_number
from baselines.fused.cpu.kernel import PIECES, Array, Kernel, called, inlined, part
from baselines.fused.cpu.lif_constants import LIFScalars
from baselines.fused.cpu.lif_kernels import TileAffine, first_and_last
from baselines.fused.cpu.simd import LANES, load, load_scalar, store

# Groups of images whose weight gradients are summed on their own.
PARTS = 8


class FiringNeurons(NamedTuple):
    """The neurons of each row that fire: a sparse matrix in CSR format.

    Attributes:
        indptr: first neuron of each row, and the end, int64.
        indices: column of each neuron, int64.
        periods: period of each neuron, uint8.
    """

    indptr: Array
    indices: Array
    periods: Array


class Windows(NamedTuple):
    """Sizes of a convolution without padding of spikes that are pooled over squares of 2x2.

    Attributes:
        height: height of the map before pooling, even.
        width: width of the map before pooling, even.
        channels: number of input channels C.
        side: height and width of the kernel.
        outputs: number of output channels O.
    """

    height: int
    width: int
    channels: int
    side: int
    outputs: int


@Kernel
def find_periods(
    currents: Array, affine: TileAffine, constants: LIFScalars, time_steps: int, periods: Array
) -> None:
    """Find the step at which each neuron first fires.

    Args:
        currents: currents ``(1, L)``, the same at every step.
        affine: scale and shift of the currents, ``(1, V)``.
        constants: constants of the neurons.
        time_steps: number of time steps T, at most 255.
        periods: periods ``(1, L)`` uint8, written.
    """
    neurons, width = currents.shape[1], affine.scale.shape[1]
    for piece in numba.prange(PIECES):
        for tile in part(piece, (neurons + width - 1) // width):
            first, last = first_and_last(tile, width, neurons)
            _find(currents, affine, constants, time_steps, first=first, last=last, periods=periods)


@called
def _find(
    currents: Array,
    affine: TileAffine,
    constants: LIFScalars,
    time_steps: int,
    first: int,
    last: int,
    periods: Array,
) -> None:
    """Find the first spikes of the neurons of a tile.

    Args:
        currents: currents ``(1, L)``.
        affine: scale and shift of the currents, ``(1, V)``.
        constants: constants of the neurons.
        time_steps: number of time steps T.
        first: index of the tile's first neuron.
        last: index after the tile's last neuron.
        periods: periods ``(1, L)``, written.
    """
    decay, threshold = constants.decay, constants.threshold
    scale, shift = affine.scale[0], affine.shift[0]
    current, period = currents[0, first:last], periods[0, first:last]
    potential = np.zeros(last - first, scale.dtype)
    period[:] = 0
    for t in range(1, time_steps + 1):
        step = np.uint8(t)
        for i in range(last - first):
            normalised = scale[i] * to_number(current[i]) + shift[i]
            reached = decay * potential[i] + normalised
            potential[i] = reached
            fires = (reached - threshold > 0) and period[i] == 0
            period[i] = step if fires else period[i]


@Kernel
def connect(neurons: FiringNeurons, weights: Array, bias: Array, currents: Array) -> None:
    """Compute the currents of a linear layer.

    Args:
        neurons: input neurons that fire, a row per image.
        weights: weights ``(C, O)``.
        bias: bias ``(O,)``.
        currents: currents ``(T, N, O)``, written.
    """
    time_steps, images, outputs = currents.shape
    flat, targets = weights.reshape(-1), currents.reshape(-1)
    for piece in numba.prange(PIECES):
        sums = np.empty((time_steps + 1) * LANES, flat.dtype)
        for index in part(piece, outputs // LANES * images):
            image, channel = index % images, index // images * LANES
            sums[:] = 0
            for k in range(neurons.indptr[image], neurons.indptr[image + 1]):
                target = load_scalar(neurons.periods, k) * LANES
                weight = load(flat, load_scalar(neurons.indices, k) * outputs + channel)
                store(sums, target, load(sums, target) + weight)
            place = image * outputs + channel
            _add_periods(sums, bias, channel, length=LANES, currents=targets, first=place)


@inlined
def _add_periods(
    sums: Array, bias: Array, channel: int, length: int, currents: Array, first: int
) -> None:
    """Add up the sums of all periods that divide a step, for each step.

    Args:
        sums: sums of weights ``(T + 1, length)`` by period, flat.
        bias: bias ``(O,)``.
        channel: channel of the first current; the channels repeat.
        length: number of currents of a step, a multiple of LANES.
        currents: currents ``(T, N, ...)``, flat, written.
        first: index of the first current of the first step.
    """
    time_steps = len(sums) // length - 1
    step = len(currents) // time_steps
    for t in range(1, time_steps + 1):
        for i in range(0, length, LANES):
            total = load(bias, (channel + i) % len(bias)) + load(sums, t * length + i)
            for period in range(1, t // 2 + 1):
                if t % period == 0:
                    total += load(sums, period * length + i)
            store(currents, first + (t - 1) * step + i, total)


@inlined
def _sum_multiples(gradients: Array, first: int, length: int, sums: Array, target: int) -> None:
    """Sum gradients over the multiples of each period.

    Args:
        gradients: gradients ``(T, N, ...)``, flat.
        first: index of the first gradient of the first step.
        length: number of gradients of a step, a multiple of LANES.
        sums: sums ``(..., T + 1, length)`` by period, flat, written; undefined for period 0.
        target: index of the first sum.
    """
    time_steps = (len(sums) - target) // length - 1
    step = len(gradients) // time_steps
    for period in range(1, time_steps + 1):
        for i in range(0, length, LANES):
            total = load(gradients, first + (period - 1) * step + i)
            for t in range(2 * period, time_steps + 1, period):
                total += load(gradients, first + (t - 1) * step + i)
            store(sums, target + period * length + i, total)


@Kernel
def connection_gradients(neurons: FiringNeurons, grad_currents: Array, grad_weights: Array) -> None:
    """Compute the gradients of the weights of a linear layer.

    Args:
        neurons: images in which each input neuron fires, a row per input neuron.
        grad_currents: gradients of the currents ``(T, N, O)``.
        grad_weights: gradients of the weights ``(C, O)``, written.
    """
    time_steps, images, outputs = grad_currents.shape
    gradients, targets = grad_currents.reshape(-1), grad_weights.reshape(-1)
    row = (time_steps + 1) * LANES
    for piece in numba.prange(PIECES):
        scratch = np.zeros(row, targets.dtype)
        sums = np.empty(images * row, targets.dtype)
        for block in part(piece, outputs // LANES):
            channel = block * LANES
            for image in range(images):
                _sum_multiples(gradients, image * outputs + channel, LANES, sums=scratch, target=0)
                # An assignment to a slice can raise an error, which takes Numba two seconds to
                # compile.
                for i in range(row):
                    sums[image * row + i] = scratch[i]
            for neuron in range(len(grad_weights)):
                total = load(scratch, 0)
                for k in range(neurons.indptr[neuron], neurons.indptr[neuron + 1]):
                    image = load_scalar(neurons.indices, k)
                    period = load_scalar(neurons.periods, k)
                    total += load(sums, image * row + period * LANES)
                store(targets, neuron * outputs + channel, total)


@Kernel
def convolve(
    periods: Array, windows: Windows, weights: Array, bias: Array, currents: Array
) -> None:
    """Compute the currents of a convolution of pooled spikes.

    Args:
        periods: periods ``(N, height * width * C)`` uint8.
        windows: sizes.
        weights: a quarter of the weights, the last tap first, ``(C, side, side, O)``, flat.
        bias: bias ``(O,)``.
        currents: currents ``(T, N, Q * O)``, written.
    """
    time_steps, images, length = currents.shape
    targets = currents.reshape(-1)
    for piece in numba.prange(PIECES):
        sums = np.empty((time_steps + 1) * length, weights.dtype)
        for image in part(piece, images):
            sums[:] = 0
            _add_windows(periods[image], windows, weights, sums)
            _add_periods(sums, bias, 0, length=length, currents=targets, first=image * length)


@called
def _add_windows(periods: Array, windows: Windows, weights: Array, sums: Array) -> None:
    """Add the weights of all neurons of an image to the outputs that they reach.

    Args:
        periods: periods ``(height * width * C,)``.
        windows: sizes.
        weights: weights; see :func:`convolve`.
        sums: sums ``(T + 1, Q, O)`` by period, flat, added to.
    """
    side, outputs = windows.side, windows.outputs
    rows, columns = windows.height // 2 - side + 1, windows.width // 2 - side + 1
    for pixel in range(windows.height * windows.width):
        row, column = pixel // windows.width // 2, pixel % windows.width // 2
        left, right = max(0, column - side + 1), min(columns, column + 1)
        for channel in range(windows.channels):
            period = load_scalar(periods, pixel * windows.channels + channel)
            if period:
                for output_row in range(max(0, row - side + 1), min(rows, row + 1)):
                    tap = (channel * side + side - 1 - row + output_row) * side
                    source = (tap + side - 1 - column + left) * outputs
                    target = ((period * rows + output_row) * columns + left) * outputs
                    for i in range(0, (right - left) * outputs, LANES):
                        total = load(sums, target + i) + load(weights, source + i)
                        store(sums, target + i, total)


@Kernel
def convolution_gradients(
    periods: Array, windows: Windows, grad_currents: Array, grad_weights: Array
) -> None:
    """Compute the gradients of the weights of :func:`convolve`, as sums over parts of the images.

    Args:
        periods: periods ``(N, height * width * C)`` uint8.
        windows: sizes.
        grad_currents: gradients of the currents ``(T, N, Q * O)``.
        grad_weights: gradients of the weights ``(PARTS, C * side * side * O)``, zeros that are
            added to.
    """
    time_steps, images, length = grad_currents.shape
    gradients = grad_currents.reshape(-1)
    for index in numba.prange(PARTS):
        sums = np.empty((time_steps + 1) * length, grad_weights.dtype)
        for image in range(index * images // PARTS, (index + 1) * images // PARTS):
            _sum_multiples(gradients, image * length, length, sums=sums, target=0)
            _add_window_gradients(periods[image], windows, sums, grad_weights[index])


@called
def _add_window_gradients(
    periods: Array, windows: Windows, sums: Array, grad_weights: Array
) -> None:
    """Add the gradients of the outputs that each neuron of an image reaches.

    Args:
        periods: periods ``(height * width * C,)``.
        windows: sizes.
        sums: sums of gradients ``(T + 1, Q, O)`` by period, flat.
        grad_weights: gradients of the weights, flat, added to.
    """
    side, outputs = windows.side, windows.outputs
    rows, columns = windows.height // 2 - side + 1, windows.width // 2 - side + 1
    for pixel in range(windows.height * windows.width):
        row, column = pixel // windows.width // 2, pixel % windows.width // 2
        left, right = max(0, column - side + 1), min(columns, column + 1)
        for channel in range(windows.channels):
            period = load_scalar(periods, pixel * windows.channels + channel)
            if period:
                for output_row in range(max(0, row - side + 1), min(rows, row + 1)):
                    tap = (channel * side + side - 1 - row + output_row) * side
                    target = (tap + side - 1 - column + left) * outputs
                    source = ((period * rows + output_row) * columns + left) * outputs
                    for i in range(0, (right - left) * outputs, LANES):
                        total = load(grad_weights, target + i) + load(sums, source + i)
                        store(grad_weights, target + i, total)
