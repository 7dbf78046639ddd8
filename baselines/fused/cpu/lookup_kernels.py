"""Compiled kernels that sum weights over spikes by table look-up, and run the neurons they drive.

Four inputs that are 0 or 1 have 16 *patterns*. A table holds, for four inputs, the sum of their
weights under each pattern. The sum over all inputs then takes one addition per four inputs,
however many of them fire (the method of the four Russians: Arlazarov et al., 1970).

Sizes: T time steps, N images, Q output pixels, W words of 32 input channels per pixel, K taps,
B blocks of 32 output channels.
"""

from typing import NamedTuple

import numba
import numpy as np

from baselines.fused.cpu.bfloat16 import as_bfloat16
from baselines.fused.cpu.connectivity import Connectivity
from baselines.fused.cpu.kernel import PIECES, Array, Kernel, inlined, part
from baselines.fused.cpu.lif_constants import LIFScalars
from baselines.fused.cpu.packed_spike_kernels import SpikeWords
from baselines.fused.cpu.simd import (
    LANES,
    Vector,
    broadcast,
    is_positive,
    load,
    load_scalar,
    select,
    store,
    store_fence,
    store_nontemporal,
    store_scalar,
    to_bitmask,
)

GROUP = 4
PATTERNS = 2**GROUP
TABLE = PATTERNS * LANES
# The groups of a word are added to each other before they are added to a total. Their tables take
# 16 KiB in float32.
GROUPS_PER_WORD = LANES // GROUP
WORD_TABLES = GROUPS_PER_WORD * TABLE
# Images whose totals are summed together: each reads the same tables.
IMAGES = 4


class LookupTables(NamedTuple):
    """Weights as look-up tables.

    Attributes:
        entries: sums of weights ``(B, K, W, GROUPS_PER_WORD, PATTERNS, LANES)``, flat.
        bias: bias ``(B * LANES,)``.
        rounded: True to round the currents, but not their partial sums, to bfloat16.
    """

    entries: Array
    bias: Array
    rounded: bool


class Affine(NamedTuple):
    """A scale and a shift per channel, which normalise the currents.

    Attributes:
        scale: factors ``(B * LANES,)``.
        shift: summands ``(B * LANES,)``.
    """

    scale: Array
    shift: Array


class Moments(NamedTuple):
    """Sums for mean and variance, per piece of the work and channel; see :func:`sum_currents`.

    Attributes:
        origin: first current of each piece ``(PIECES, B * LANES)``, written.
        sums: sums of ``x - origin``, ``(PIECES, B * LANES)``, zeros that are added to.
        squares: sums of ``(x - origin)^2``, ``(PIECES, B * LANES)``, zeros that are added to.
        counts: number of currents ``(PIECES, B)``, zeros that are added to.
    """

    origin: Array
    sums: Array
    squares: Array
    counts: Array


class Membranes(NamedTuple):
    """Membrane potentials before the first and after the last time step.

    Attributes:
        initial: potentials ``(N, Q, B * LANES)``, flat.
        final: potentials ``(N, Q, B * LANES)``, flat, written; can be ``initial`` itself.
        from_rest: True to start at 0 and ignore ``initial``.
    """

    initial: Array
    final: Array
    from_rest: bool


class Tile(NamedTuple):
    """Currents that are summed together: all steps of a few images, 32 channels of one pixel.

    Attributes:
        block: index of the 32 channels.
        image: index of the first image.
        images: number of images.
        row: row of the output pixel; see :class:`Connectivity`.
    """

    block: int
    image: int
    images: int
    row: int


class LIFVectors(NamedTuple):
    """Constants of 32 neurons, in registers.

    Attributes:
        scale: factors of their currents.
        shift: summands of their scaled currents.
        decay: decay in every lane.
        threshold: threshold in every lane.
        zero: 0 in every lane.
    """

    scale: Vector
    shift: Vector
    decay: Vector
    threshold: Vector
    zero: Vector


@inlined
def tabulate_group(numbers: Array, first: int, stride: int, table: Array, start: int) -> None:
    """Write the sums of four vectors under each of the 16 patterns.

    Args:
        numbers: flat array with the vectors, ``stride`` apart.
        first: index of the first vector, the summand of patterns whose lowest bit is set.
        stride: distance from a vector to the next.
        table: flat array with the sums ``(PATTERNS, LANES)`` from ``start`` on, written.
        start: index of the first sum.
    """
    one, two = load(numbers, first), load(numbers, first + stride)
    three, four = load(numbers, first + 2 * stride), load(numbers, first + 3 * stride)
    store(table, start, one - one)
    store(table, start + LANES, one)
    store(table, start + 2 * LANES, two)
    store(table, start + 3 * LANES, one + two)
    for bit, summand in ((4, three), (8, four)):
        for pattern in range(bit):
            total = load(table, start + pattern * LANES) + summand
            store(table, start + (pattern + bit) * LANES, total)


@Kernel
def tabulate(weights: Array, tables: Array) -> None:
    """Compute the tables of weights.

    Args:
        weights: weights ``(K * W * GROUPS_PER_WORD, GROUP, B, LANES)``.
        tables: sums ``(B, K * W * GROUPS_PER_WORD, PATTERNS, LANES)``, written.
    """
    blocks, groups = tables.shape[:2]
    flat, entries, stride = weights.reshape(-1), tables.reshape(-1), blocks * LANES
    for piece in numba.prange(PIECES):
        for index in part(piece, blocks * groups):
            first = (index % groups * GROUP * blocks + index // groups) * LANES
            tabulate_group(flat, first, stride, entries, index * TABLE)


@inlined
def look_up_word(word: int, tables: Array, first: int) -> Vector:
    """Return the sum of the weights of the spikes in a word, for 32 output channels.

    Args:
        word: 32 spikes.
        tables: array with the tables ``(GROUPS_PER_WORD, PATTERNS, LANES)`` from ``first`` on.
        first: index of the first table.
    """
    total = load(tables, first + (word & (PATTERNS - 1)) * LANES)
    for _ in range(1, GROUPS_PER_WORD):
        first += TABLE
        word >>= GROUP
        total += load(tables, first + (word & (PATTERNS - 1)) * LANES)
    return total


@inlined
def _tile_count(images: int, pixels: int, blocks: int) -> int:
    """Return the number of tiles."""
    return blocks * ((images + IMAGES - 1) // IMAGES) * pixels


@inlined
def _tile_at(index: int, images: int, pixels: int) -> Tile:
    """Return a tile; tiles of one block and the same images follow one another."""
    groups = (images + IMAGES - 1) // IMAGES
    image = index // pixels % groups * IMAGES
    return Tile(index // (groups * pixels), image, min(IMAGES, images - image), index % pixels)


@inlined
def _sum_tile(
    spikes: SpikeWords, tables: LookupTables, connectivity: Connectivity, tile: Tile, totals: Array
) -> None:
    """Sum the currents of a tile: the bias and the weights of all spikes.

    For each word of input channels, all totals are updated: they share its tables.

    Args:
        spikes: input spikes.
        tables: weights and bias.
        connectivity: input pixels of each output pixel.
        tile: the currents to sum.
        totals: currents ``(T, tile.images, LANES)``, flat, written.
    """
    words, entries = spikes.words, tables.entries
    indices, taps = connectivity.indices, connectivity.taps
    for index in range(spikes.steps * tile.images):
        store(totals, index * LANES, load(tables.bias, tile.block * LANES))
    first_tap = tile.block * connectivity.kernel_size
    for connection in range(
        load_scalar(connectivity.indptr, tile.row), load_scalar(connectivity.indptr, tile.row + 1)
    ):
        source = tile.image * spikes.image_stride + load_scalar(indices, connection)
        table = (first_tap + load_scalar(taps, connection)) * spikes.blocks * WORD_TABLES
        for block in range(spikes.blocks):
            target = 0
            for step in range(spikes.steps):
                word = source + step * spikes.step_stride + block * spikes.pixels
                for _ in range(tile.images):
                    summand = look_up_word(load_scalar(words, word), entries, table)
                    store(totals, target, load(totals, target) + summand)
                    word += spikes.image_stride
                    target += LANES
            table += WORD_TABLES
    if tables.rounded:
        round_totals(totals, spikes.steps * tile.images)


@inlined
def round_totals(totals: Array, count: int) -> None:
    """Round currents ``(count, LANES)``, flat, to bfloat16 in place."""
    for index in range(count):
        store(totals, index * LANES, as_bfloat16(load(totals, index * LANES)))


@Kernel
def sum_currents(
    spikes: SpikeWords,
    tables: LookupTables,
    connectivity: Connectivity,
    currents: Array,
    moments: Moments,
) -> None:
    """Compute the currents of all output pixels, and the sums for their mean and variance.

    Args:
        spikes: input spikes of T steps and N images.
        tables: weights and bias.
        connectivity: input pixels of each output pixel.
        currents: currents ``(T, N, Q, B * LANES)``, flat, written past the caches; it must begin at
            a multiple of CACHE_LINE.
        moments: sums per piece and channel, written.
    """
    pixels, blocks = len(connectivity.rank), moments.counts.shape[1]
    for piece in numba.prange(PIECES):
        totals = np.empty(spikes.steps * IMAGES * LANES, currents.dtype)
        for index in part(piece, _tile_count(spikes.images, pixels, blocks)):
            tile = _tile_at(index, spikes.images, pixels)
            _sum_tile(spikes, tables, connectivity, tile, totals)
            _add_moments(totals, spikes.steps * tile.images, moments, piece, tile.block)
            pixel = load_scalar(connectivity.pixel_order, tile.row)
            source = 0
            for step in range(spikes.steps):
                for image in range(tile.image, tile.image + tile.images):
                    row = (step * spikes.images + image) * pixels + pixel
                    target = (row * blocks + tile.block) * LANES
                    store_nontemporal(currents, target, load(totals, source))
                    source += LANES
        store_fence()


@inlined
def _add_moments(totals: Array, count: int, moments: Moments, piece: int, block: int) -> None:
    """Add the currents of a tile to the sums for mean and variance.

    Args:
        totals: currents ``(count, LANES)``, flat.
        count: number of currents per channel.
        moments: sums per piece and channel, added to.
        piece: piece of the work.
        block: index of the 32 channels.
    """
    origins, counts = moments.origin[piece], moments.counts[piece]
    all_sums, all_squares, channel = moments.sums[piece], moments.squares[piece], block * LANES
    before = load_scalar(counts, block)
    if before == 0:
        store(origins, channel, load(totals, 0))
    store_scalar(counts, block, before + count)
    origin = load(origins, channel)
    total, square = load(all_sums, channel), load(all_squares, channel)
    for index in range(count):
        deviation = load(totals, index * LANES) - origin
        total += deviation
        square += deviation * deviation
    store(all_sums, channel, total)
    store(all_squares, channel, square)


@Kernel
def lif_forward(
    spikes: SpikeWords,
    tables: LookupTables,
    connectivity: Connectivity,
    affine: Affine,
    constants: LIFScalars,
    membranes: Membranes,
    fired: SpikeWords,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    The currents x are computed as in :func:`sum_currents`, but not written to memory.

    Args:
        spikes: input spikes of T steps and N images.
        tables: weights and bias.
        connectivity: input pixels of each output pixel.
        affine: scale and shift of the currents.
        constants: constants of the neurons.
        membranes: initial and final potentials.
        fired: output spikes of T steps, N images and Q pixels, written.
    """
    pixels, pixel_order = fired.pixels, connectivity.pixel_order
    for piece in numba.prange(PIECES):
        totals = np.empty(spikes.steps * IMAGES * LANES, tables.bias.dtype)
        for index in part(piece, _tile_count(fired.images, pixels, fired.blocks)):
            tile = _tile_at(index, fired.images, pixels)
            _sum_tile(spikes, tables, connectivity, tile, totals)
            scale = load(affine.scale, tile.block * LANES)
            shift = load(affine.shift, tile.block * LANES)
            lif = lif_vectors(scale, shift, constants)
            pixel = load_scalar(pixel_order, tile.row)
            fire_tile(totals, tile, pixel, lif, membranes=membranes, fired=fired)


@inlined
def lif_vectors(scale: Vector, shift: Vector, constants: LIFScalars) -> LIFVectors:
    """Return the constants of 32 neurons, in registers.

    Args:
        scale: factors of their currents.
        shift: summands of their scaled currents.
        constants: constants of the neurons.
    """
    decay, threshold = broadcast(constants.decay), broadcast(constants.threshold)
    return LIFVectors(scale, shift, decay, threshold, decay - decay)


@inlined
def fire_tile(
    totals: Array,
    tile: Tile,
    pixel: int,
    lif: LIFVectors,
    membranes: Membranes,
    fired: SpikeWords,
) -> None:
    """Run the neurons of a tile through all time steps.

    Args:
        totals: their currents ``(T, tile.images, LANES)``, flat.
        tile: their block of channels and their images.
        pixel: their output pixel.
        lif: constants of the neurons.
        membranes: initial potentials, and final ones, written.
        fired: output spikes, written.
    """
    words = fired.words
    for k in range(tile.images):
        neuron = (tile.image + k) * fired.pixels + pixel
        neuron = (neuron * fired.blocks + tile.block) * LANES
        word = (tile.image + k) * fired.image_stride + tile.block * fired.pixels + pixel
        potential = lif.zero if membranes.from_rest else load(membranes.initial, neuron)
        for t in range(fired.steps):
            current = load(totals, (t * tile.images + k) * LANES)
            potential = lif.decay * potential + (lif.scale * current + lif.shift)
            fires = is_positive(potential - lif.threshold)
            store_scalar(words, word, to_bitmask(fires))
            word += fired.step_stride
            potential = select(fires, lif.zero, potential)
        store(membranes.final, neuron, potential)
