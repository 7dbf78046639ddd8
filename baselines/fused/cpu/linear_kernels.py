"""Compiled kernels of linear layers: sums of weights over spikes by table look-up.

The idea is explained in :mod:`lookup_kernels`. Each weight of a linear layer belongs to one output
only, so a table serves few sums: it is made where it is used, and never leaves the core's cache.
"""

from typing import NamedTuple

import numba
import numpy as np

from baselines.fused.cpu.kernel import PIECES, Array, Kernel, Scalar, inlined, part
from baselines.fused.cpu.lif_constants import LIFScalars
from baselines.fused.cpu.lookup_kernels import (
    GROUP,
    GROUPS_PER_WORD,
    TABLE,
    WORD_TABLES,
    Affine,
    Membranes,
    Tile,
    fire_tile,
    lif_vectors,
    look_up_word,
    round_totals,
    tabulate_group,
)
from baselines.fused.cpu.packed_spike_kernels import SpikeWords
from baselines.fused.cpu.simd import (
    LANES,
    Vector,
    broadcast,
    load,
    load_scalar,
    store,
    store_fence,
    store_nontemporal,
)

# Rows that use a table before the next one is made. Their totals take 32 KiB in float32.
ROWS = 256


class LinearWeights(NamedTuple):
    """Parameters of a linear layer of W * LANES inputs and B * LANES outputs.

    Attributes:
        weights: weights, flat: of input c and output ``b * LANES + i`` at
            ``b * block_stride + c * input_stride + i``.
        bias: bias ``(B * LANES,)``.
        block_stride: distance from the weights of a block of 32 outputs to the next block's.
        input_stride: distance from the weights of an input to the next input's.
        rounded: True to round the currents, but not their partial sums, to bfloat16.
    """

    weights: Array
    bias: Array
    block_stride: int
    input_stride: int
    rounded: bool


class BatchStatistics(NamedTuple):
    """Mean and biased variance of the batch per output, for normalisation.

    Attributes:
        means: means ``(B * LANES,)``, written if ``used``.
        variances: biased variances ``(B * LANES,)``, written if ``used``.
        epsilon: number added to the variances before the square root.
        used: True to compute the statistics and normalise with them.
    """

    means: Array
    variances: Array
    epsilon: Scalar
    used: bool


@inlined
def _sum_tile(
    spikes: SpikeWords, parameters: LinearWeights, tile: Tile, table: Array, totals: Array
) -> None:
    """Sum the currents of a tile: the bias and the weights of all spikes.

    Args:
        spikes: input spikes of one pixel.
        parameters: weights and bias.
        tile: the currents to sum.
        table: room for the tables of a word ``(WORD_TABLES,)``.
        totals: currents ``(T, tile.images, LANES)``, flat, written.
    """
    words, weights, stride = spikes.words, parameters.weights, parameters.input_stride
    bias = load(parameters.bias, tile.block * LANES)
    for index in range(spikes.steps * tile.images):
        store(totals, index * LANES, bias)
    weight = tile.block * parameters.block_stride
    for block in range(spikes.blocks):
        for group in range(GROUPS_PER_WORD):
            tabulate_group(weights, weight, stride, table, group * TABLE)
            weight += GROUP * stride
        target = 0
        for step in range(spikes.steps):
            word = tile.image * spikes.image_stride + step * spikes.step_stride + block
            for _ in range(tile.images):
                summand = look_up_word(load_scalar(words, word), table, 0)
                store(totals, target, load(totals, target) + summand)
                word += spikes.image_stride
                target += LANES
    if parameters.rounded:
        round_totals(totals, spikes.steps * tile.images)


@inlined
def _tile_at(index: int, images: int, together: int) -> Tile:
    """Return a tile of at most ``together`` images; tiles of one block follow one another."""
    groups = (images + together - 1) // together
    image = index % groups * together
    return Tile(index // groups, image, min(together, images - image), 0)


@Kernel
def sum_currents(spikes: SpikeWords, parameters: LinearWeights, currents: Array) -> None:
    """Compute the currents of a linear layer.

    Args:
        spikes: input spikes of one step, R images and one pixel.
        parameters: weights and bias.
        currents: currents ``(R, B * LANES)``, flat, written past the caches; it must begin at a
            multiple of CACHE_LINE.
    """
    channels, groups = len(parameters.bias), (spikes.images + ROWS - 1) // ROWS
    for piece in numba.prange(PIECES):
        table = np.empty(WORD_TABLES, currents.dtype)
        totals = np.empty(ROWS * LANES, currents.dtype)
        for index in part(piece, channels // LANES * groups):
            tile = _tile_at(index, spikes.images, ROWS)
            _sum_tile(spikes, parameters, tile, table, totals)
            target = tile.image * channels + tile.block * LANES
            for k in range(tile.images):
                store_nontemporal(currents, target + k * channels, load(totals, k * LANES))
        store_fence()


@Kernel
def lif_forward(
    spikes: SpikeWords,
    parameters: LinearWeights,
    affine: Affine,
    statistics: BatchStatistics,
    constants: LIFScalars,
    membranes: Membranes,
    fired: SpikeWords,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    The currents x are computed as in :func:`sum_currents`, but not written to memory.

    Args:
        spikes: input spikes of T steps, N images and one pixel.
        parameters: weights and bias.
        affine: scale and shift of the currents, which are normalised before if
            ``statistics.used``.
        statistics: mean and variance of the currents, written if used.
        constants: constants of the neurons.
        membranes: initial and final potentials.
        fired: output spikes of T steps, N images and one pixel, written.
    """
    together = fired.images if statistics.used else max(1, ROWS // fired.steps)
    groups = (fired.images + together - 1) // together
    for piece in numba.prange(PIECES):
        table = np.empty(WORD_TABLES, affine.scale.dtype)
        totals = np.empty(fired.steps * together * LANES, affine.scale.dtype)
        for index in part(piece, fired.blocks * groups):
            tile = _tile_at(index, fired.images, together)
            _sum_tile(spikes, parameters, tile, table, totals)
            scale = load(affine.scale, tile.block * LANES)
            shift = load(affine.shift, tile.block * LANES)
            if statistics.used:
                count = fired.steps * tile.images
                scale, shift = _normalised(totals, count, affine, statistics, tile.block)
            lif = lif_vectors(scale, shift, constants)
            fire_tile(totals, tile, 0, lif, membranes=membranes, fired=fired)


@inlined
def _normalised(
    totals: Array, count: int, affine: Affine, statistics: BatchStatistics, block: int
) -> tuple[Vector, Vector]:
    """Return scale and shift that include the normalisation with the batch's statistics.

    Args:
        totals: currents ``(count, LANES)``, flat.
        count: number of currents per channel.
        affine: scale and shift of the normalised currents.
        statistics: mean and variance, written.
        block: index of the 32 channels.
    """
    share, mean = broadcast(totals.dtype.type(1 / count)), load(totals, 0)
    mean = mean - mean
    square = mean
    for index in range(count):
        mean += load(totals, index * LANES)
    mean = mean * share
    for index in range(count):
        deviation = load(totals, index * LANES) - mean
        square += deviation * deviation
    channel = block * LANES
    store(statistics.means, channel, mean)
    store(statistics.variances, channel, square * share)
    factors = np.empty(LANES, totals.dtype)
    for i in range(LANES):
        deviation_i = np.sqrt(statistics.variances[channel + i] + statistics.epsilon)
        factors[i] = affine.scale[channel + i] / deviation_i
    scale = load(factors, 0)
    return scale, load(affine.shift, channel) - mean * scale
