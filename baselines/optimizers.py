"""Optimisers, as a protocol describes them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from bench.protocol import Protocol


def optimizer(
    protocol: Protocol,
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    device: torch.device,
    learning_rate: float | None = None,
) -> torch.optim.Optimizer:
    """Return the protocol's optimiser.

    Args:
        protocol: protocol with optimiser, learning rate and weight decay. Adam and AdamW take its
            ``betas``; RMSprop has PyTorch's smoothing, 0.99.
        parameters: parameters, or groups of them, as ``torch.optim`` takes them.
        device: device of the parameters.
        learning_rate: learning rate; None for the protocol's.
    """
    rate = protocol.effective_learning_rate if learning_rate is None else learning_rate
    decay, captured = protocol.weight_decay, device.type == "cuda"
    if protocol.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, weight_decay=decay, capturable=captured)
    classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return classes[protocol.optimizer](
        parameters,
        lr=rate,
        betas=protocol.betas,
        weight_decay=decay,
        fused=True,
        capturable=captured,
    )


def prepare(restored: torch.optim.Optimizer, device: torch.device) -> None:
    """Set what depends on the device in an optimiser that was restored on perhaps another kind."""
    for group in restored.param_groups:
        group["capturable"] = device.type == "cuda"
