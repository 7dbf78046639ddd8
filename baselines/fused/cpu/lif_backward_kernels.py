"""Compiled kernel of the backward pass of normalised LIF neurons.

Arrays have the shapes of :mod:`baselines.fused.cpu.lif_kernels`; the numbers of neurons L and V are
multiples of LANES. A loop over neurons with as many arrays as here is not vectorised by LLVM.
Therefore LANES neurons at a time pass through all time steps in vector registers.
"""

from typing import NamedTuple

import numba
import numpy as np

from baselines.fused.cpu.bfloat16 import to_element, to_number
from baselines.fused.cpu.kernel import PIECES, Array, Kernel, called, inlined
from baselines.fused.cpu.lif_constants import RECTANGLE, TRIANGLE, LIFScalars
from baselines.fused.cpu.lif_kernels import BLOCK, MembraneRows, TileAffine, tiles_and_blocks
from baselines.fused.cpu.simd import (
    LANES,
    Vector,
    broadcast,
    is_positive,
    load,
    load_scalar,
    multiply_add,
    select,
    store,
    store_fence,
    store_nontemporal,
)


class SpikeGradients(NamedTuple):
    """Gradients of the spikes, as products ``factors[t] * steps[t]``.

    Attributes:
        factors: factor per time step ``(T,)``.
        steps: gradients ``(T, L)``, or ``(1, L)`` if they are the same at every step; ``(T, L /
            4)`` if squares of 2x2 spikes share a gradient; ``(T, 0)`` if there are maps.
        weights: weights ``(T, N, R)`` of the maps.
        maps: maps ``(N, R, F)`` of which ``steps[t, n * F + f] = sum_r weights[t, n, r] *
            maps[n, r, f]``, F a multiple of LANES; N = 0 if there are none.
        width: width of the map, even, if squares share gradients, else 0.
        channels: number of channels, a multiple of LANES, if squares share gradients, else 0.
    """

    factors: Array
    steps: Array
    weights: Array
    maps: Array
    width: int
    channels: int


class Gradients(NamedTuple):
    """Gradients that the backward pass computes, and the arrays that it sums.

    Attributes:
        currents: gradients of the normalised currents ``(T, L)``, or ``(1, L)`` summed over the
            steps if the currents are the same at every step; written. The memory begins at a
            multiple of CACHE_LINE.
        membrane: gradients of the final potentials ``(L,)``; replaced by the gradients of the
            initial potentials.
        sums: sums of the gradients of the currents per neuron of a tile, ``(P, S, V)``, added to;
            P is PIECES, or 1 for tiles of so many neurons that the pieces share them.
        products: sums of these gradients times the currents less ``mean``, ``(P, S, V)``, added to.
        mean: mean of the currents per neuron of a tile ``(S, V)``.
    """

    currents: Array
    membrane: Array
    sums: Array
    products: Array
    mean: Array


class _Block(NamedTuple):
    """Numbers of BLOCK neurons; S is T, or 1 for values that are the same at every step.

    Attributes:
        currents: currents ``(S, BLOCK)``.
        grad_spikes: gradients of the spikes ``(S, BLOCK)``.
        potentials: potentials of LANES neurons before each reset ``(T, LANES)``.
    """

    currents: Array
    grad_spikes: Array
    potentials: Array


@Kernel
def lif_backward(
    currents: Array,
    affine: TileAffine,
    constants: LIFScalars,
    membrane: MembraneRows,
    grad_spikes: SpikeGradients,
    gradients: Gradients,
) -> None:
    """Compute the gradients of :func:`lif_kernels.lif_forward`, computing its potentials again.

    Args:
        currents: currents x ``(T, L)``, or ``(1, L)`` if they are the same at every step.
        affine: scale and shift of the currents.
        constants: constants of the neurons.
        membrane: initial potentials.
        grad_spikes: gradients of the spikes.
        gradients: gradients of the final potentials, replaced; all other gradients, written.
    """
    neurons, width = len(gradients.membrane), affine.scale.shape[1]
    tile_count, blocks = (neurons + width - 1) // width, (width + BLOCK - 1) // BLOCK
    for piece in numba.prange(PIECES):
        # Numba gives all threads one array if its size is a variable from before the loop.
        block = _Block(
            np.empty((len(currents), BLOCK), affine.scale.dtype),
            np.empty((len(grad_spikes.steps), BLOCK), affine.scale.dtype),
            np.empty((len(grad_spikes.factors), LANES), affine.scale.dtype),
        )
        pieces = len(gradients.sums)
        tiles, columns = tiles_and_blocks(piece, pieces, tile_count, blocks)
        for tile in tiles:
            first = tile * width
            for column in columns:
                begin = first + column * BLOCK
                count = min(BLOCK, min(first + width, neurons) - begin)
                _read(currents, begin, count, block.currents)
                _read_gradients(grad_spikes, begin, count, block.grad_spikes)
                for i in range(0, count, LANES):
                    neuron, place = begin + i, begin + i - first
                    _recompute(block, i, affine, constants, membrane, neuron=neuron, place=place)
                    _backpropagate(
                        block,
                        i,
                        constants,
                        grad_spikes.factors,
                        gradients,
                        piece=np.int64(piece) % pieces,
                        neuron=neuron,
                        place=place,
                    )
        store_fence()


@inlined
def _read(steps: Array, begin: int, count: int, block: Array) -> None:
    """Copy neurons at all time steps.

    Args:
        steps: values ``(S, L)``.
        begin: index of the first neuron.
        count: number of neurons.
        block: numbers ``(S, BLOCK)``, written.
    """
    time_steps, neurons = steps.shape
    for t in range(time_steps):
        for i in range(0, count, LANES):
            store(block, t * BLOCK + i, to_number(load(steps, t * neurons + begin + i)))


@called
def _read_gradients(grad_spikes: SpikeGradients, begin: int, count: int, block: Array) -> None:
    """Copy or compute the gradients of neurons, but for their factors.

    Args:
        grad_spikes: gradients of the spikes.
        begin: index of the first neuron.
        count: number of neurons.
        block: numbers ``(S, BLOCK)``, written.
    """
    if len(grad_spikes.maps) > 0:
        _combine(grad_spikes, begin, count, block)
    elif grad_spikes.width:
        _read_squares(grad_spikes, begin, count, block)
    else:
        _read(grad_spikes.steps, begin, count, block)


@inlined
def _combine(grad_spikes: SpikeGradients, begin: int, count: int, block: Array) -> None:
    """Compute the gradients of neurons at all time steps from maps.

    Args:
        grad_spikes: weights and maps.
        begin: index of the first neuron.
        count: number of neurons.
        block: numbers ``(T, BLOCK)``, written.
    """
    weights, maps = grad_spikes.weights.reshape(-1), grad_spikes.maps.reshape(-1)
    images, terms, features = grad_spikes.maps.shape
    zero = broadcast(weights[0] - weights[0])
    for i in range(0, count, LANES):
        image, place = (begin + i) // features, (begin + i) % features
        for t in range(len(grad_spikes.factors)):
            total = zero
            for term in range(terms):
                weight = load_scalar(weights, (t * images + image) * terms + term)
                numbers = load(maps, (image * terms + term) * features + place)
                total = multiply_add(total, broadcast(weight), numbers)
            store(block, t * BLOCK + i, total)


@inlined
def _read_squares(gradients: SpikeGradients, begin: int, count: int, block: Array) -> None:
    """Copy the gradients of neurons of which squares share them.

    Args:
        gradients: gradients of the spikes.
        begin: index of the first neuron.
        count: number of neurons.
        block: numbers ``(T, BLOCK)``, written.
    """
    time_steps, length = gradients.steps.shape
    width, channels = gradients.width, gradients.channels
    for i in range(0, count, LANES):
        pixel, channel = (begin + i) // channels, (begin + i) % channels
        # Heights are even, so that rows of pixels pair up across images.
        square = pixel // width // 2 * (width // 2) + pixel % width // 2
        for t in range(time_steps):
            source = t * length + square * channels + channel
            store(block, t * BLOCK + i, to_number(load(gradients.steps, source)))


@inlined
def _recompute(
    block: _Block,
    i: int,
    affine: TileAffine,
    constants: LIFScalars,
    membrane: MembraneRows,
    neuron: int,
    place: int,
) -> None:
    """Compute the potentials of LANES neurons before each reset.

    Args:
        block: block, whose potentials are written.
        i: index of the first neuron in the block.
        affine: scale and shift of the currents.
        constants: constants of the neurons.
        membrane: initial potentials.
        neuron: index of the first neuron.
        place: index of the first neuron in its tile.
    """
    decay, threshold = broadcast(constants.decay), broadcast(constants.threshold)
    zero = broadcast(constants.decay - constants.decay)
    row = affine.scale.shape[1] if len(affine.scale) > 1 else 0
    state = zero if membrane.from_rest else load(membrane.initial, neuron)
    step = BLOCK if len(block.currents) > 1 else 0
    for t in range(len(block.potentials)):
        scale, shift = load(affine.scale, t * row + place), load(affine.shift, t * row + place)
        reached = decay * state + (scale * load(block.currents, t * step + i) + shift)
        store(block.potentials, t * LANES, reached)
        state = select(is_positive(reached - threshold), zero, reached)


@inlined
def _backpropagate(
    block: _Block,
    i: int,
    constants: LIFScalars,
    factors: Array,
    gradients: Gradients,
    piece: int,
    neuron: int,
    place: int,
) -> None:
    """Compute the gradients of LANES neurons, from the last time step to the first.

    Args:
        block: block with the potentials of the neurons.
        i: index of the first neuron in the block.
        constants: constants of the neurons.
        factors: factors of the gradients of the spikes ``(T,)``.
        gradients: gradients, written.
        piece: index of the sums to add to.
        neuron: index of the first neuron.
        place: index of the first neuron in its tile.
    """
    decay, threshold = broadcast(constants.decay), broadcast(constants.threshold)
    zero, (rows, width) = broadcast(constants.decay - constants.decay), gradients.sums.shape[1:]
    at, row = piece * rows * width + place, width if rows > 1 else 0
    sums, products = load(gradients.sums, at), load(gradients.products, at)
    grad_state, total = load(gradients.membrane, neuron), zero
    step = BLOCK if len(block.currents) > 1 else 0
    grad_step = BLOCK if len(block.grad_spikes) > 1 else 0
    for t in range(len(factors) - 1, -1, -1):
        potential = load(block.potentials, t * LANES)
        excess = potential - threshold
        grad_spike = broadcast(load_scalar(factors, t)) * load(block.grad_spikes, t * grad_step + i)
        grad_fire = grad_spike
        if constants.reset_gradient:
            grad_fire = grad_spike - grad_state * potential
        gradient = _through_surrogate(grad_fire, excess, constants)
        gradient = gradient + select(is_positive(excess), zero, grad_state)
        grad_state = decay * gradient
        deviation = load(block.currents, t * step + i) - load(gradients.mean, t * row + place)
        if row:
            sums = load(gradients.sums, at + t * row)
            products = load(gradients.products, at + t * row)
        sums, products = sums + gradient, products + gradient * deviation
        if row:
            store(gradients.sums, at + t * row, sums)
            store(gradients.products, at + t * row, products)
        if step:
            written = to_element(gradient, load_scalar(gradients.currents, 0))
            store_nontemporal(gradients.currents, t * len(gradients.membrane) + neuron, written)
        else:
            total = total + gradient
    if not step:
        written = to_element(total, load_scalar(gradients.currents, 0))
        store(gradients.currents, neuron, written)
    store(gradients.membrane, neuron, grad_state)
    # After the last iteration, t = 0: per step, these were written just now.
    store(gradients.sums, at, sums)
    store(gradients.products, at, products)


@inlined
def _through_surrogate(grad_fire: Vector, excess: Vector, constants: LIFScalars) -> Vector:
    """Return the gradients of potentials through the surrogate gradient.

    Args:
        grad_fire: gradients of the firing of LANES neurons.
        excess: their potentials less the threshold.
        constants: constants of the neurons.
    """
    offset, half_width = excess - broadcast(constants.centre), broadcast(constants.half_width)
    zero = broadcast(constants.decay - constants.decay)
    gradient = grad_fire * broadcast(constants.height)
    if constants.surrogate == RECTANGLE:
        gradient = select(is_positive(half_width + offset), gradient, zero)
        gradient = select(is_positive(half_width - offset), gradient, zero)
    elif constants.surrogate == TRIANGLE:
        inside = half_width - select(is_positive(offset), offset, zero - offset)
        gradient = gradient * (select(is_positive(inside), inside, zero) / half_width)
    else:
        square = half_width * half_width
        gradient = gradient * (square / (square + offset * offset))
    return gradient
