"""Calls of a trained model, from CUDA graphs where it can be captured."""

from collections.abc import Callable

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

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return :meth:`GenerativeModel.sample`, images ``(n, C, H, W)``."""
        return self._call("sample", n, lambda g: self._model.sample(n, g), generator)

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return :meth:`GenerativeModel.reconstruct`, for images ``(N, C, H, W)``."""
        return self._call("reconstruct", len(images), self._model.reconstruct, generator, images)

    def test_loss(self, images: Tensor, batches: int, generator: torch.Generator) -> Tensor:
        """Return :meth:`GenerativeModel.test_loss` of a batch ``(N, C, H, W)``, a scalar.

        Args:
            images: images in [-1, 1].
            batches: number of batches that the test set is divided into.
            generator: source of the model's random draws.
        """

        def loss(images: Tensor, generator: torch.Generator) -> Tensor:
            return self._model.test_loss(images, Step(1.0, batches), generator)

        return self._call("test_loss", len(images), loss, generator, images)

    def graph(self, method: str, n: int) -> GraphedFunction:
        """Return how a method runs for n images, after it was called once with so many."""
        return self._functions[method, n]

    def _call(
        self, name: str, n: int, function: Call, generator: torch.Generator, *inputs: Tensor
    ) -> Tensor:
        # A graph draws from the generator that it was captured with.
        own = self._generator
        if (name, n) not in self._functions:
            self._functions[name, n] = GraphedFunction(
                name,
                lambda *given: function(*given, own),
                self._model,
                device=self._model.device,
                capturable=self._model.capturable,
                generator=own,
            )
        graphed = self._functions[name, n]
        if graphed.eager is not None:
            return function(*inputs, generator)
        own.set_state(generator.get_state())
        result: Tensor = graphed(*inputs)
        generator.set_state(own.get_state())
        return result
