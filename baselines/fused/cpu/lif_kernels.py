"""Compiled kernels of normalised LIF neurons and of tdBN.

Arrays are ``(T, L)``: time steps, and the neurons of all images in their order in memory. Values
per channel are given for one *tile* of V neurons, which repeats along L; S is T for values of each
time step, or 1 for values of all steps. Elements are float32, float64 or bfloat16 (as uint16,
computed in float32); spikes can also be uint8.
"""

from typing import NamedTuple

import numba
import numpy as np

from baselines.fused.cpu.bfloat16 import to_element, to_number
from baselines.fused.cpu.kernel import PIECES, Array, Kernel, called, inlined, part
from baselines.fused.cpu.lif_constants import LIFScalars

# Neurons that are read together: long stretches of memory are read faster, and these fit the cache.
BLOCK = 128
# Neurons whose spikes are summed together.
SUMMED = 2**11


class TileAffine(NamedTuple):
    """A scale and a shift per channel, repeated for the neurons of a tile.

    Attributes:
        scale: factors ``(S, V)``.
        shift: summands ``(S, V)``.
    """

    scale: Array
    shift: Array


class MembraneRows(NamedTuple):
    """Membrane potentials before the first and after the last time step.

    Attributes:
        initial: potentials ``(L,)``.
        final: potentials ``(L,)``, written by the forward pass; ignored by the backward pass.
        from_rest: True to start at 0 and ignore ``initial``.
    """

    initial: Array
    final: Array
    from_rest: bool


@inlined
def first_and_last(tile: int, width: int, neurons: int) -> tuple[int, int]:
    """Return the first neuron of a tile and the index after its last one.

    Args:
        tile: index of the tile.
        width: number of neurons of a whole tile.
        neurons: number of all neurons.
    """
    return tile * width, min((tile + 1) * width, neurons)


@inlined
def tiles_and_blocks(piece: int, pieces: int, tiles: int, blocks: int) -> tuple[range, range]:
    """Return the share of a piece of the work: tiles, or blocks of every tile.

    Args:
        piece: index of the piece.
        pieces: number of pieces that sum on their own; 1 to divide the blocks, so that each sum is
            of one piece.
        tiles: number of tiles.
        blocks: number of blocks of neurons in a tile.
    """
    if pieces > 1:
        return part(piece, tiles), range(blocks)
    return range(tiles), part(piece, blocks)


@Kernel
def lif_forward(
    currents: Array,
    affine: TileAffine,
    constants: LIFScalars,
    membrane: MembraneRows,
    spikes: Array,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    Args:
        currents: currents x ``(T, L)``, or ``(1, L)`` if they are the same at every step.
        affine: scale and shift of the currents.
        constants: constants of the neurons.
        membrane: initial potentials, and final ones, written.
        spikes: spikes ``(T, L)``, written.
    """
    neurons, width = spikes.shape[1], affine.scale.shape[1]
    for piece in numba.prange(PIECES):
        for tile in part(piece, (neurons + width - 1) // width):
            first, last = first_and_last(tile, width, neurons)
            _fire(currents, affine, constants, membrane, first=first, last=last, spikes=spikes)


@called
def _fire(
    currents: Array,
    affine: TileAffine,
    constants: LIFScalars,
    membrane: MembraneRows,
    first: int,
    last: int,
    spikes: Array,
) -> None:
    """Run the neurons of a tile through all time steps.

    Args:
        currents: currents ``(T, L)`` or ``(1, L)``.
        affine: scale and shift of the currents.
        constants: constants of the neurons.
        membrane: initial potentials, and final ones, written.
        first: index of the tile's first neuron.
        last: index after the tile's last neuron.
        spikes: spikes ``(T, L)``, written.
    """
    decay, threshold, zero = constants.decay, constants.threshold, affine.scale.dtype.type(0)
    silent = to_element(zero, spikes[0, 0])
    fired = to_element(affine.scale.dtype.type(1), spikes[0, 0])
    potential = membrane.final[first:last]
    _start(membrane, first, potential)
    for t in range(len(spikes)):
        current, spike = currents[t if len(currents) > 1 else 0, first:last], spikes[t, first:last]
        row = t if len(affine.scale) > 1 else 0
        scale, shift = affine.scale[row], affine.shift[row]
        for i in range(last - first):
            normalised = scale[i] * to_number(current[i]) + shift[i]
            reached = decay * potential[i] + normalised
            fires = reached - threshold > 0
            spike[i] = fired if fires else silent
            potential[i] = zero if fires else reached


@inlined
def _start(membrane: MembraneRows, first: int, potential: Array) -> None:
    """Write the initial potentials of the neurons from ``first`` on to ``potential``, ``(V,)``."""
    if membrane.from_rest:
        potential[:] = 0
    else:
        # An assignment to a slice can raise an error, which takes Numba two seconds to compile.
        for i in range(len(potential)):
            potential[i] = membrane.initial[first + i]


@Kernel
def add_scaled(gradients: Array, currents: Array, a: Array, b: Array, c: Array) -> None:
    """Compute ``gradients = a * gradients + b * currents + c`` in place.

    Args:
        gradients: gradients ``(T, L)``, replaced.
        currents: currents ``(T, L)``.
        a: factors of the gradients, per neuron of a tile ``(S, V)``.
        b: factors of the currents ``(S, V)``.
        c: summands ``(S, V)``.
    """
    time_steps, neurons = gradients.shape
    width = a.shape[1]
    for piece in numba.prange(PIECES):
        for tile in part(piece, (neurons + width - 1) // width):
            first, last = first_and_last(tile, width, neurons)
            for t in range(time_steps):
                row = t if len(a) > 1 else 0
                gradient, current = gradients[t, first:last], currents[t, first:last]
                u, v, w = a[row], b[row], c[row]
                for i in range(last - first):
                    value = u[i] * to_number(gradient[i]) + v[i] * to_number(current[i]) + w[i]
                    gradient[i] = to_element(value, gradient[i])


@Kernel
def sum_deviations(currents: Array, origin: Array, sums: Array, squares: Array) -> None:
    """Sum ``x - origin`` and ``(x - origin)^2``.

    Args:
        currents: currents x ``(T, L)``.
        origin: numbers per neuron of a tile ``(S, V)``; digits are lost far from the mean.
        sums: sums per piece and neuron of a tile ``(P, S, V)``, added to; P is PIECES, or 1 for
            tiles of so many neurons that the pieces share them.
        squares: sums of squares ``(P, S, V)``, added to.
    """
    time_steps, neurons = currents.shape
    pieces, _, width = sums.shape
    tile_count, blocks = (neurons + width - 1) // width, (width + BLOCK - 1) // BLOCK
    for piece in numba.prange(PIECES):
        target = np.int64(piece) % pieces
        tiles, columns = tiles_and_blocks(piece, pieces, tile_count, blocks)
        for tile in tiles:
            first = tile * width
            begin = min(columns.start * BLOCK, neurons - first)
            end = min(columns.stop * BLOCK, width, neurons - first)
            for t in range(time_steps):
                row = t if len(origin) > 1 else 0
                near, current = origin[row, begin:end], currents[t, first + begin : first + end]
                total, square = sums[target, row, begin:end], squares[target, row, begin:end]
                for i in range(end - begin):
                    deviation = to_number(current[i]) - near[i]
                    total[i] += deviation
                    square[i] += deviation * deviation


@Kernel
def weighted_sum(spikes: Array, weights: Array, total: Array) -> None:
    """Compute ``total = sum_t weights_t * spikes_t``.

    Args:
        spikes: spikes ``(T, L)`` uint8.
        weights: weights ``(T,)``.
        total: sums ``(L,)``, written.
    """
    time_steps, neurons = spikes.shape
    for piece in numba.prange(PIECES):
        for tile in part(piece, (neurons + SUMMED - 1) // SUMMED):
            first, last = first_and_last(tile, SUMMED, neurons)
            sums = total[first:last]
            sums[:] = 0
            for t in range(time_steps):
                weight, spike = weights[t], spikes[t, first:last]
                for i in range(last - first):
                    sums[i] += weight * spike[i]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_pieces(sums: Array, total: Array) -> None:
    """Add the sums of all pieces and neurons of a tile, by channel.

    Args:
        sums: sums ``(P, S, V)``, V a multiple of C.
        total: totals ``(S, C)`` float64, added to.
    """
    pieces, rows, width = sums.shape
    channels = total.shape[1]
    for piece in range(pieces):
        for row in range(rows):
            for first in range(0, width, channels):
                values = sums[piece, row, first : first + channels]
                for i in range(channels):
                    total[row, i] += values[i]
