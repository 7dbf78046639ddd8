"""Calls of a trained model, from CUDA graphs where it can be captured."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bench.model import GenerativeModel, Step
from bench.system.cuda_graphs import GraphedFunction

Call = Callable[..., Tensor]


class ModelCalls:
    """The methods of a model in evaluation mode that are called batch after batch.

    Each method has a graph for each size of batch, as it is first called with that size.

    Args:
        model: model on its device. Its parameters may change between calls, but in place only.
    """

    def __init__(self, model: GenerativeModel) -> None:
        self._model = model
        self._generator = torch.Generator(model.device)
        self._functions: dict[tuple[str, int], GraphedFunction] = {}

    def sample(self, n: int, generator: torch.Generator, **labels: Tensor) -> Tensor:
        """Return :meth:`GenerativeModel.sample`, images ``(n, C, H, W)``.

        Args:
            n: number of images.
            generator: source of the model's random draws.
            **labels: ``labels``, int64 ``(n,)``, of a class-conditional model.
        """

        def sample(generator: torch.Generator, **labels: Tensor) -> Tensor:
            return self._model.sample(n, generator, **labels)

        return self._call("sample", n, sample, generator, **labels)

    def reconstruct(self, images: Tensor, generator: torch.Generator, **labels: Tensor) -> Tensor:
        """Return :meth:`GenerativeModel.reconstruct`, images ``(N, C, H, W)``.

        Args:
            images: images ``(N, C, H, W)`` in [-1, 1].
            generator: source of the model's random draws.
            **labels: ``labels``, int64 ``(N,)``, of a class-conditional model.
        """
        model = self._model
        return self._call(
            "reconstruct", len(images), model.reconstruct, generator, images, **labels
        )

    def test_loss(
        self, images: Tensor, batches: int, generator: torch.Generator, **labels: Tensor
    ) -> Tensor:
        """Return :meth:`GenerativeModel.test_loss` of a batch ``(N, C, H, W)``, a scalar.

        Args:
            images: images in [-1, 1].
            batches: number of batches that the test set is divided into.
            generator: source of the model's random draws.
            **labels: ``labels``, int64 ``(N,)``, of a class-conditional model.
        """

        def loss(images: Tensor, generator: torch.Generator, **labels: Tensor) -> Tensor:
            return self._model.test_loss(
                images, Step(1.0, batches, stage=self._model.last_stage), generator, **labels
            )

        return self._call("test_loss", len(images), loss, generator, images, **labels)

    def graph(self, method: str, n: int) -> GraphedFunction:
        """Return how a method runs for n images, after it was called once with so many."""
        return self._functions[method, n]

    def _call(
        self,
        name: str,
        n: int,
        function: Call,
        generator: torch.Generator,
        *images: Tensor,
        **labels: Tensor,
    ) -> Tensor:
        # A graph draws from the generator that it was captured with.
        own = self._generator
        inputs = (*images, *labels.values())

        def call(generator: torch.Generator, *inputs: Tensor) -> Tensor:
            images = inputs[: len(inputs) - len(labels)]
            named = dict(zip(labels, inputs[len(images) :], strict=True))
            return function(*images, generator, **named)

        if (name, n) not in self._functions:
            self._functions[name, n] = GraphedFunction(
                name,
                partial(call, own),
                self._model,
                device=self._model.device,
                capturable=self._model.capturable,
                generator=own,
            )
        graphed = self._functions[name, n]
        if graphed.eager is not None:
            return call(generator, *inputs)
        own.set_state(generator.get_state())
        result: Tensor = graphed(*inputs)
        generator.set_state(own.get_state())
        return result
