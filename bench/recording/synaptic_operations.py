"""Exact counts of the synaptic operations of layers, taken while the layers run.

A *connection* is a weight between an element of a layer's input and an element of its output;
elements that padding adds have none. Each call of a layer uses each connection once, which is one
``dense`` operation. The operation is also *effective* if the input and the weight are not zero. It
is then an accumulate (AC) if all inputs of the call are in {-1, 0, 1}, else a multiply-accumulate
(MAC). Biases are not counted. The terms are those that NeuroBench defines (arXiv:2304.04640).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.recording.counting import counter, is_binary, memory_order, nonzero
from bench.recording.memory_accesses import SynapticCall

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
    """Synaptic operations of one layer while a batch of N images was computed.

    Attributes:
        macs: effective MACs per image, float64 ``(N,)``.
        acs: effective ACs per image, float64 ``(N,)``.
        dense: number of dense operations of all images.
        by_image: True if ``macs``, ``acs`` and ``accesses`` are counted image by image, for inputs
            ``(N, ...)``, ``(T, N, ...)`` or ``(T * N, ...)``. For other inputs they are the mean
            over the images.
        accesses: accesses to memory per image, float64 ``(N,)``, by the memory's size in words.
    """

    macs: Tensor
    acs: Tensor
    dense: int = 0
    by_image: bool = True
    accesses: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class FanOut:
    """Number of connections that leave the elements of a layer's input, for one image.

    Attributes:
        dense: number of connections of all input elements.
        effective: connections with a non-zero weight per input element, float64 ``(F,)``.
    """

    dense: int
    effective: Tensor


@dataclass
class OperationCounter:
    """Counter of one layer's operations, call by call, while its weights stay constant.

    Attributes:
        layer: layer whose calls are counted.
        images: number of images N that all calls together compute.
        operations: operations counted so far.
    """

    layer: SynapticLayer
    images: int
    operations: Operations = field(init=False)
    _fan_outs: dict[tuple[torch.Size, torch.Size], FanOut] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        device = self.layer.weight.device
        zeros = torch.zeros(self.images, dtype=torch.float64, device=device)
        self.operations = Operations(zeros, zeros)

    def count(self, inputs: Tensor, outputs: torch.Size) -> None:
        """Count the operations of one call.

        Args:
            inputs: input of the call, ``(..., *shape)`` with any leading dimensions.
            outputs: shape of the output of the call.
        """
        dimensions = 1 if isinstance(self.layer, nn.Linear) else len(self.layer.kernel_size) + 1
        leading, shape = inputs.shape[:-dimensions], inputs.shape[-dimensions:]
        connections = self._fan_out(shape, outputs[-dimensions:])
        by_image = _is_by_image(leading, self.images)
        counted = self.operations
        counted.by_image &= by_image
        counted.dense += leading.numel() * connections.dense
        rows = self.images if by_image else leading.numel()
        axes = memory_order(inputs, len(leading))
        uses, accumulates = _uses(inputs.permute(axes).reshape(-1, rows, shape.numel()))
        trailing = [axis - len(leading) for axis in axes[len(leading) :]]
        fans = connections.effective.view(shape).permute(trailing).flatten()
        effective, events = uses.double() @ fans, uses.sum(1, dtype=torch.float64)
        if not by_image:
            effective, events = self._mean(effective), self._mean(events)
        if accumulates:
            counted.acs = counted.acs + effective
        else:
            counted.macs = counted.macs + effective
        call = SynapticCall(
            events,
            effective,
            repetitions=leading.numel() / self.images,
            inputs=shape.numel(),
            outputs=outputs[-dimensions:].numel(),
            parameters=sum(parameter.numel() for parameter in self.layer.parameters()),
            linear=isinstance(self.layer, nn.Linear),
            bias=self.layer.bias is not None,
            event_driven=accumulates,
        )
        for words, number in call.accesses():
            counted.accesses[words] = counted.accesses.get(words, 0) + number

    def _mean(self, counts: Tensor) -> Tensor:
        return (counts.sum() / self.images).expand(self.images)

    def _fan_out(self, inputs: torch.Size, outputs: torch.Size) -> FanOut:
        key = (inputs, outputs)
        if key not in self._fan_outs:
            self._fan_outs[key] = fan_out(self.layer, *key)
        return self._fan_outs[key]


def fan_out(layer: SynapticLayer, inputs: torch.Size, outputs: torch.Size) -> FanOut:
    """Count the connections that leave each input element of a layer, for one image.

    The count is the gradient of the summed outputs with respect to the input, with each non-zero
    weight set to 1. It is computed in float64 on the CPU, which represents it exactly.

    Args:
        layer: linear or convolutional layer.
        inputs: shape of the input for one image.
        outputs: shape of the output for one image.

    Returns:
        The fan-out; ``effective`` is ``(F,)`` for the F elements of ``inputs``, on the layer's
        device.

    >>> layer = nn.Conv1d(1, 1, kernel_size=3, padding=1)
    >>> fan_out(layer, torch.Size([1, 4]), torch.Size([1, 4]))
    FanOut(dense=10, effective=tensor([2., 3., 3., 2.], dtype=torch.float64))
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
    """Sum the weights over the output channels of each group, so that one channel is computed."""
    if isinstance(layer, nn.Linear):
        return weight.sum(0, keepdim=True)
    if layer.transposed:
        return weight.sum(1, keepdim=True)
    return weight.unflatten(0, (layer.groups, -1)).sum(1)


def _run(layer: SynapticLayer, image: Tensor, weight: Tensor, outputs: torch.Size) -> Tensor:
    """Apply the layer with other weights, without bias and without its hooks."""
    if isinstance(layer, nn.Linear):
        return F.linear(image, weight)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer._conv_forward(image, weight, None)
    transposed = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
    padding = tuple(map(int, layer.padding))
    # The call can ask for an output padding other than the layer's own.
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
    """Return True if the leading dimensions are ``(N,)``, ``(T * N,)`` or ``(..., N)``.

    >>> _is_by_image(torch.Size([8]), 4), _is_by_image(torch.Size([4, 2]), 4)
    (True, False)
    """
    if len(leading) == 1:
        return leading[0] % images == 0
    return len(leading) > 1 and leading[-1] == images


def _uses(inputs: Tensor) -> tuple[Tensor, bool]:
    """Count the non-zero inputs over the first axis, one row at a time to save memory.

    Args:
        inputs: inputs ``(R, N, F)``.

    Returns:
        The number of non-zero elements ``(N, F)``, and True if all elements are in {-1, 0, 1}.

    >>> _uses(torch.tensor([[[1.0, 0.0]], [[1.0, -1.0]]]))
    (tensor([[2, 1]], dtype=torch.uint8), True)
    """
    uses = counter(inputs.shape[1:], len(inputs), inputs.device)
    accumulates = True
    for rows in inputs:
        uses += nonzero(rows)
        accumulates = accumulates and _is_ternary(rows)
    return uses, accumulates


def _is_ternary(values: Tensor) -> bool:
    """Return True if all elements of ``(...)`` are in {-1, 0, 1}."""
    if values.dtype == torch.uint8:
        return is_binary(values)
    return torch.equal(values.sign(), values)
