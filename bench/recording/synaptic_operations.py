"""Synaptic operations of layers, counted exactly while they run.

A *connection* joins an element of a layer's input to an element of its output that it has a weight
for; what a convolution's padding adds has none. Each call of a layer uses each connection once.
That is a ``dense`` operation, and an effective one where input and weight are not zero: an
accumulate (AC) if all inputs of the call are in {-1, 0, 1}, else a multiply-accumulate (MAC). Bias
is left out. The terms are NeuroBench's (arXiv:2304.04640).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SYNAPTIC_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
SynapticLayer = (
    nn.Linear
    | nn.Conv1d
    | nn.Conv2d
    | nn.Conv3d
    | nn.ConvTranspose1d
    | nn.ConvTranspose2d
    | nn.ConvTranspose3d
)


@dataclass
class Operations:
    """Operations of one layer while a batch of N images was made.

    Attributes:
        macs: effective MACs by image, ``(N,)`` float64.
        acs: effective ACs by image, alike.
        dense: dense operations of all images.
        by_image: whether ``macs`` and ``acs`` are each image's own. They are where the layer's
            input is ``(N, ...)``, ``(T, N, ...)`` or time folded into the batch, ``(T * N, ...)``;
            else each image has an equal share.
    """

    macs: Tensor
    acs: Tensor
    dense: int = 0
    by_image: bool = True


@dataclass(frozen=True)
class FanOut:
    """How many connections leave the elements of one image's input to a layer.

    Attributes:
        dense: all connections together.
        effective: those with a non-zero weight, by input element, flat, float64.
    """

    dense: int
    effective: Tensor


@dataclass
class OperationCounter:
    """Counts the operations of one layer, call by call; the weights do not change meanwhile.

    Attributes:
        layer: whose calls are counted.
        images: how many images N the calls together make.
        operations: what has been counted so far.
    """

    layer: SynapticLayer
    images: int
    operations: Operations = field(init=False)
    _fan_outs: dict[tuple[torch.Size, torch.Size], FanOut] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        device = self.layer.weight.device
        none = torch.zeros(self.images, dtype=torch.float64, device=device)
        self.operations = Operations(none, none)

    def count(self, inputs: Tensor, outputs: torch.Size) -> None:
        """Count one call, from its inputs, with any leading dimensions, and its outputs' shape."""
        dimensions = 1 if isinstance(self.layer, nn.Linear) else len(self.layer.kernel_size) + 1
        leading, shape = inputs.shape[:-dimensions], inputs.shape[-dimensions:]
        connections = self._fan_out(shape, outputs[-dimensions:])
        by_image = _is_by_image(leading, self.images)
        found = self.operations
        found.by_image &= by_image
        found.dense += leading.numel() * connections.dense
        rows = self.images if by_image else leading.numel()
        uses, accumulates = _uses(inputs.reshape(-1, rows, shape.numel()))
        effective = uses.double() @ connections.effective
        if not by_image:
            effective = (effective.sum() / self.images).expand(self.images)
        if accumulates:
            found.acs = found.acs + effective
        else:
            found.macs = found.macs + effective

    def _fan_out(self, inputs: torch.Size, outputs: torch.Size) -> FanOut:
        key = (inputs, outputs)
        if key not in self._fan_outs:
            self._fan_outs[key] = fan_out(self.layer, *key)
        return self._fan_outs[key]


def fan_out(layer: SynapticLayer, inputs: torch.Size, outputs: torch.Size) -> FanOut:
    """The fan-out of a layer for one image's input and output, of these shapes.

    It is the gradient of the sum of the outputs with respect to the input, were each weight 1 (0
    where it is 0). Float64 on the CPU holds it exactly.
    """
    with torch.inference_mode(False), torch.enable_grad():
        weight = layer.weight.detach().cpu()
        effective = _summed_gradient(layer, weight.ne(0).double(), inputs, outputs)
        dense = effective
        if not weight.all():
            dense = _summed_gradient(layer, torch.ones_like(weight).double(), inputs, outputs)
    return FanOut(int(dense.sum().item()), effective.to(layer.weight.device))


def _summed_gradient(
    layer: SynapticLayer, weight: Tensor, inputs: torch.Size, outputs: torch.Size
) -> Tensor:
    image = torch.zeros((1, *inputs), dtype=torch.float64, requires_grad=True)
    summed = _summed_over_outputs(layer, weight)
    (gradient,) = torch.autograd.grad(_run(layer, image, summed, outputs).sum(), image)
    return gradient.flatten()


def _summed_over_outputs(layer: SynapticLayer, weight: Tensor) -> Tensor:
    """Weights of one output channel (one a group) in place of the sum of them all."""
    if isinstance(layer, nn.Linear):
        return weight.sum(0, keepdim=True)
    if layer.transposed:
        return weight.sum(1, keepdim=True)
    return weight.unflatten(0, (layer.groups, -1)).sum(1)


def _run(layer: SynapticLayer, image: Tensor, weight: Tensor, outputs: torch.Size) -> Tensor:
    """The layer with other weights and no bias, past its hooks."""
    if isinstance(layer, nn.Linear):
        return F.linear(image, weight)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer._conv_forward(image, weight, None)
    transposed = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
    padding = tuple(map(int, layer.padding))
    # What the call asked for, which need not be the layer's own.
    output_padding = tuple(
        after - ((before - 1) * stride - 2 * border + dilation * (size - 1) + 1)
        for before, after, stride, border, dilation, size in zip(
            image.shape[2:],
            outputs[1:],
            layer.stride,
            padding,
            layer.dilation,
            layer.kernel_size,
            strict=True,
        )
    )
    return transposed[len(padding)](
        image, weight, None, layer.stride, padding, output_padding, layer.groups, layer.dilation
    )


def _is_by_image(leading: torch.Size, images: int) -> bool:
    if len(leading) == 1:
        return leading[0] % images == 0
    return len(leading) > 1 and leading[-1] == images


def _uses(inputs: Tensor) -> tuple[Tensor, bool]:
    """How often each element of ``(R, N, F)`` is not zero, and whether all are in {-1, 0, 1}.

    The first is ``(N, F)``. One of R after the other, which takes little memory.
    """
    uses = torch.zeros(inputs.shape[1:], device=inputs.device)
    accumulates = True
    for rows in inputs:
        uses += rows != 0
        accumulates = accumulates and torch.equal(rows.sign(), rows)
    return uses, accumulates
