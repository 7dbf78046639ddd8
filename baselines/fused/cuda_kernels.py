"""Triton kernels for tdBN and LIF neurons with gradients on CUDA.

A program computes a block of neurons over all time steps. Neurons are one axis, in the memory order
of a step's currents.
"""

import triton
import triton.language as tl

from baselines.fused.cpu import lif_constants

# Neurons per program: 16 bytes of float32 for each of its threads, the widest load.
BLOCK = tl.constexpr(512)
# Without fused multiply-add, potentials are rounded as on the other backends. With it, neurons
# close to the threshold could spike on this backend only.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
RECTANGLE = tl.constexpr(lif_constants.RECTANGLE)
TRIANGLE = tl.constexpr(lif_constants.TRIANGLE)


@triton.jit
def _initial(
    membrane: tl.tensor, place: tl.tensor, exists: tl.tensor, number: tl.constexpr
) -> tl.tensor:
    """Return the potentials that a block of neurons starts from; 0 without a membrane.

    Args:
        membrane: initial potentials ``(L,)``; None to start at rest.
        place: indices of the neurons ``(BLOCK,)``.
        exists: True for the neurons below L ``(BLOCK,)``.
        number: dtype of the potentials.
    """
    # Triton also compiles the code after an early return, where the membrane is None.
    if membrane is None:
        potential = tl.zeros((BLOCK,), number)
    else:
        potential = tl.load(membrane + place, exists)
    return potential


@triton.jit
def _of_channel(
    values: tl.tensor,
    place: tl.tensor,
    exists: tl.tensor,
    channels: tl.tensor,
    channel_stride: tl.tensor,
) -> tl.tensor:
    """Return the value of each neuron's channel ``(BLOCK,)``, from values ``(C,)``."""
    return tl.load(values + place // channel_stride % channels, exists)


@triton.jit
def moments(
    currents: tl.tensor,
    current_stride: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
) -> None:
    """Compute mean and sum of squared deviations over time, by Welford's recurrence.

    Args:
        currents: currents x ``(T, L)``.
        current_stride: distance between steps in ``currents``.
        means: means ``(L,)``, written.
        squares: sums of the squared deviations from them ``(L,)``, written.
        neurons: number of neurons L.
        time_steps: number of time steps T.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    mean = tl.zeros((BLOCK,), currents.dtype.element_ty)
    square = tl.zeros((BLOCK,), currents.dtype.element_ty)
    for step in range(time_steps):
        current = tl.load(currents + place, exists)
        deviation = current - mean
        mean += deviation / (step + 1)
        square += deviation * (current - mean)
        currents += current_stride
    tl.store(means + place, mean, exists)
    tl.store(squares + place, square, exists)


@triton.jit
def lif_forward(
    currents: tl.tensor,
    current_stride: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    channels: tl.tensor,
    channel_stride: tl.tensor,
    membrane: tl.tensor,
    spikes: tl.tensor,
    final: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
    decay: tl.constexpr,
    threshold: tl.constexpr,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + y_t`` for a block of neurons.

    Args:
        currents: currents x ``(T, L)``.
        current_stride: distance between steps in ``currents``; other arrays are contiguous.
        mean: mean per channel ``(C,)``, of which ``y = (x - mean) * scale + shift``; None for
            ``y = x``.
        scale: factor per channel ``(C,)``.
        shift: summand per channel ``(C,)``.
        channels: number of channels C.
        channel_stride: distance between the channels of a step.
        membrane: initial potentials ``(L,)``; None to start at rest.
        spikes: spikes ``(T, L)``, written.
        final: potentials after the last reset ``(L,)``, written.
        neurons: number of neurons L.
        time_steps: number of time steps T.
        decay: factor of the potential per time step.
        threshold: potential above which a neuron fires.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    state = _initial(membrane, place, exists, currents.dtype.element_ty)
    if mean is not None:
        centre = _of_channel(mean, place, exists, channels, channel_stride)
        factor = _of_channel(scale, place, exists, channels, channel_stride)
        summand = _of_channel(shift, place, exists, channels, channel_stride)
    for _ in range(time_steps):
        current = tl.load(currents + place, exists)
        if mean is not None:
            current = (current - centre) * factor + summand
        potential = decay * state + current
        fires = potential - threshold > 0
        tl.store(spikes + place, fires.to(state.dtype), exists)
        state = tl.where(fires, 0.0, potential)
        currents += current_stride
        spikes += neurons
    tl.store(final + place, state, exists)


@triton.jit
def _through_surrogate(
    grad_fire: tl.tensor,
    offset: tl.tensor,
    surrogate: tl.constexpr,
    half_width: tl.constexpr,
    width: tl.constexpr,
) -> tl.tensor:
    """Return the gradients of potentials through the surrogate gradient ``(BLOCK,)``.

    Args:
        grad_fire: gradients of the firing of the neurons ``(BLOCK,)``.
        offset: their potentials less the centre of the surrogate gradient ``(BLOCK,)``.
        surrogate: RECTANGLE, TRIANGLE or ARCTANGENT.
        half_width: distance from the centre; see :class:`~lif_constants.LIFConstants`.
        width: one over the height of the surrogate gradient.
    """
    gradient = grad_fire / width
    if surrogate == RECTANGLE:
        # Triton rounds a number that a tensor is compared with to float32, unless it is 0.
        gradient = tl.where(half_width - tl.abs(offset) > 0, gradient, 0.0)
    elif surrogate == TRIANGLE:
        gradient *= tl.maximum(1.0 - tl.abs(offset) / half_width, 0.0)
    else:
        distance = offset / half_width
        gradient = gradient / (1.0 + distance * distance)
    return gradient


@triton.jit
def lif_backward(
    currents: tl.tensor,
    current_stride: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    channels: tl.tensor,
    channel_stride: tl.tensor,
    membrane: tl.tensor,
    weights: tl.tensor,
    grad_spikes: tl.tensor,
    grad_spike_stride: tl.tensor,
    potentials: tl.tensor,
    grad_membrane: tl.tensor,
    sums: tl.tensor,
    products: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
    decay: tl.constexpr,
    threshold: tl.constexpr,
    surrogate: tl.constexpr,
    centre: tl.constexpr,
    half_width: tl.constexpr,
    width: tl.constexpr,
    reset_gradient: tl.constexpr,
    repeated: tl.constexpr,
) -> None:
    """Compute the gradients of :func:`lif_forward` for a block of neurons.

    The potentials before each reset are computed again first.

    Args:
        currents: currents x ``(T, L)``.
        current_stride: distance between steps in ``currents``.
        mean: mean per channel ``(C,)``, of which ``y = (x - mean) * scale + shift``; None for
            ``y = x``.
        scale: factor per channel ``(C,)``.
        shift: summand per channel ``(C,)``.
        channels: number of channels C.
        channel_stride: distance between the channels of a step.
        membrane: initial potentials ``(L,)``; None to start at rest.
        weights: factors ``(T,)`` of ``grad_spikes``; None for 1.
        grad_spikes: gradients of the spikes ``(T, L)``.
        grad_spike_stride: distance between steps in ``grad_spikes``.
        potentials: written: the gradients of y ``(T, L)``; of no use if ``repeated``.
        grad_membrane: gradients of the final potentials ``(L,)``, replaced by the gradients of the
            initial ones.
        sums: sums over time of the gradients of y ``(L,)``, written if there is a mean or they are
            ``repeated``.
        products: sums over time of the gradients of y times ``x - mean`` ``(L,)``, written if there
            is a mean.
        neurons: number of neurons L.
        time_steps: number of time steps T.
        decay: factor of the potential per time step.
        threshold: potential above which a neuron fires.
        surrogate: RECTANGLE, TRIANGLE or ARCTANGENT.
        centre: centre of the surrogate gradient, relative to the threshold.
        half_width: distance from the centre; see :class:`~lif_constants.LIFConstants`.
        width: one over the height of the surrogate gradient.
        reset_gradient: True if gradients flow through the reset.
        repeated: True if the currents are the same at every step.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    state = _initial(membrane, place, exists, currents.dtype.element_ty)
    if mean is not None:
        middle = _of_channel(mean, place, exists, channels, channel_stride)
        factor = _of_channel(scale, place, exists, channels, channel_stride)
        summand = _of_channel(shift, place, exists, channels, channel_stride)
    # Step by step: a product of two of these could exceed 32 bits.
    for _ in range(time_steps):
        current = tl.load(currents + place, exists)
        if mean is not None:
            current = (current - middle) * factor + summand
        potential = decay * state + current
        tl.store(potentials + place, potential, exists)
        state = tl.where(potential - threshold > 0, 0.0, potential)
        currents += current_stride
        grad_spikes += grad_spike_stride
        potentials += neurons
    # What a thread of the program wrote, another may read.
    tl.debug_barrier()
    grad_state = tl.load(grad_membrane + place, exists)
    total = tl.zeros((BLOCK,), grad_state.dtype)
    product = tl.zeros((BLOCK,), grad_state.dtype)
    for step in range(time_steps):
        currents -= current_stride
        grad_spikes -= grad_spike_stride
        potentials -= neurons
        potential = tl.load(potentials + place, exists)
        grad_spike = tl.load(grad_spikes + place, exists)
        if weights is not None:
            grad_spike *= tl.load(weights + (time_steps - 1 - step))
        excess = potential - threshold
        if reset_gradient:
            grad_spike -= grad_state * potential
        gradient = _through_surrogate(grad_spike, excess - centre, surrogate, half_width, width)
        gradient += tl.where(excess > 0, 0.0, grad_state)
        if not repeated:
            tl.store(potentials + place, gradient, exists)
        if mean is not None:
            product += gradient * (tl.load(currents + place, exists) - middle)
        total += gradient
        grad_state = decay * gradient
    if mean is not None:
        tl.store(products + place, product, exists)
    if mean is not None or repeated:
        tl.store(sums + place, total, exists)
    tl.store(grad_membrane + place, grad_state, exists)


@triton.jit
def through_norm(
    gradients: tl.tensor,
    currents: tl.tensor,
    current_stride: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    slope: tl.tensor,
    offset: tl.tensor,
    channels: tl.tensor,
    channel_stride: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
) -> None:
    """Replace gradients g of normalised currents by ``g * scale + (x - mean) * slope + offset``.

    Args:
        gradients: gradients g ``(T, L)``, replaced.
        currents: currents x ``(T, L)``.
        current_stride: distance between steps in ``currents``.
        mean: mean per channel ``(C,)``.
        scale: factor of the gradients per channel ``(C,)``.
        slope: factor of the currents' deviations per channel ``(C,)``.
        offset: summand per channel ``(C,)``.
        channels: number of channels C.
        channel_stride: distance between the channels of a step.
        neurons: number of neurons L.
        time_steps: number of time steps T.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    centre = _of_channel(mean, place, exists, channels, channel_stride)
    factor = _of_channel(scale, place, exists, channels, channel_stride)
    inclination = _of_channel(slope, place, exists, channels, channel_stride)
    summand = _of_channel(offset, place, exists, channels, channel_stride)
    for _ in range(time_steps):
        gradient = tl.load(gradients + place, exists) * factor
        gradient += (tl.load(currents + place, exists) - centre) * inclination + summand
        tl.store(gradients + place, gradient, exists)
        currents += current_stride
        gradients += neurons


@triton.jit
def weighted_sum(
    spikes: tl.tensor,
    spike_stride: tl.tensor,
    weights: tl.tensor,
    total: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
) -> None:
    """Compute ``sum_t w_t * s_t`` for a block of neurons.

    Args:
        spikes: spikes s ``(T, L)``.
        spike_stride: distance between steps in ``spikes``.
        weights: weights w ``(T,)``.
        total: the sum ``(L,)``, written.
        neurons: number of neurons L.
        time_steps: number of time steps T.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    added = tl.zeros((BLOCK,), total.dtype.element_ty)
    for step in range(time_steps):
        added += tl.load(weights + step) * tl.load(spikes + place, exists)
        spikes += spike_stride
    tl.store(total + place, added, exists)
