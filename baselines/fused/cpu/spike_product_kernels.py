"""Compiled kernels of weighted sums over time and inner products of spikes.

Spikes are ``(T, N, F)`` uint8: time steps, images, and the features of an image in their order in
memory.
"""

import numba

from baselines.fused.cpu.kernel import PIECES, Array, Kernel, part
from baselines.fused.cpu.lif_kernels import SUMMED, first_and_last
from baselines.fused.cpu.simd import LANES, broadcast, is_nonzero, load, select, store


@Kernel
def weighted_sums(spikes: Array, weights: Array, sums: Array) -> None:
    """Compute ``sums[n, g] = sum_t weights[t, n, g] * spikes[t, n]``.

    Args:
        spikes: spikes ``(T, N, F)`` uint8.
        weights: weights ``(T, N, G)``.
        sums: sums ``(N, G, F)``, written.
    """
    images, groups, features = sums.shape
    tiles = (features + SUMMED - 1) // SUMMED
    for piece in numba.prange(PIECES):
        for index in part(piece, images * tiles):
            image = index // tiles
            first, last = first_and_last(index % tiles, SUMMED, features)
            for group in range(groups):
                total = sums[image, group, first:last]
                total[:] = 0
                for t in range(len(spikes)):
                    weight, spike = weights[t, image, group], spikes[t, image, first:last]
                    for i in range(last - first):
                        total[i] += weight * spike[i]


@Kernel
def inner_products(spikes: Array, maps: Array, products: Array) -> None:
    """Compute ``sum_f spikes[t, n, f] * maps[n, g, f]`` in LANES parts, of every LANES-th feature.

    Args:
        spikes: spikes ``(T, N, F)`` uint8, F a multiple of LANES.
        maps: maps ``(N, G, F)``, or ``(1, G, F)`` if they are the same for all images.
        products: parts of the products ``(T, N, G, LANES)``, written.
    """
    steps, images, groups, _ = products.shape
    features = spikes.shape[2]
    flat, numbers, parts = spikes.reshape(-1), maps.reshape(-1), products.reshape(-1)
    for piece in numba.prange(PIECES):
        zero = broadcast(numbers[0] - numbers[0])
        for index in part(piece, images * steps):
            image, row = index // steps, index % steps * images + index // steps
            for group in range(groups):
                at = ((image if len(maps) > 1 else 0) * groups + group) * features
                product = zero
                for i in range(0, features, LANES):
                    fired = is_nonzero(load(flat, row * features + i))
                    product += select(fired, load(numbers, at + i), zero)
                store(parts, (row * groups + group) * LANES, product)
