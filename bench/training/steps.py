"""The training steps of a model, from a CUDA graph where it can be captured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.model import GenerativeModel, Step
from bench.system.cuda_graphs import GraphedFunction


class TrainingSteps:
    """Calls ``training_step`` of a model.

    Of a model that can be captured, all steps on a GPU get their progress on the GPU, so that they
    do the same whether they are replayed or not.

    Args:
        model: model on its device.
        batch_size: number of images of a full batch. The others run as they are.
        batches: number of batches of an epoch.

    Attributes:
        taken: number of steps.
        stage: name of the stage, see :meth:`begin_stage`.
    """

    def __init__(self, model: GenerativeModel, batch_size: int, batches: int) -> None:
        self.taken, self.stage = 0, ""
        self._model, self._batch_size, self._batches = model, batch_size, batches
        self._replayed_before = 0
        self._full = self._graphed()
        # The position on the device, of a model that is captured.
        self._position: Step | None = None
        if self.eager is None:
            progress = torch.zeros((), dtype=torch.float64, device=model.device)
            epoch, step = torch.zeros(2, dtype=torch.int64, device=model.device)
            self._position = Step(progress, batches, epoch, step)

    def begin_stage(self, stage: str) -> None:
        """Name the stage of the steps that follow; a graph of the steps before is of no use."""
        if stage != self.stage:
            self._replayed_before = self.replayed
            self.stage, self._full = stage, self._graphed()

    @property
    def replayed(self) -> int:
        """Number of steps that were replayed from a CUDA graph."""
        return self._replayed_before + self._full.replayed

    @property
    def eager(self) -> str | None:
        """Reason why no step can be replayed; None if there is none."""
        return self._full.eager

    @property
    def ready(self) -> bool:
        """True if the next step of a full batch is like all that follow."""
        return self._full.ready

    def take(
        self, images: Tensor, progress: float, labels: Tensor | None = None
    ) -> Mapping[str, Any]:
        """Train on a batch ``(N, C, H, W)``, and return what the model returns.

        Args:
            images: images in [-1, 1].
            progress: share of the training that is done, in [0, 1].
            labels: classes of the images, int64 ``(N,)``, of a class-conditional model.
        """
        inputs = (images,) if labels is None else (images, labels)
        here = Step(progress, self._batches, self.taken // self._batches, self.taken, self.stage)
        self.taken += 1
        if self._position is None:
            return _train(self._model, here, *inputs)
        for name in ("progress", "epoch", "step"):
            getattr(self._position, name).fill_(getattr(here, name))
        if len(images) != self._batch_size:
            return self._step(*inputs)
        losses: Mapping[str, Any] = self._full(*inputs)
        return losses

    def state_dict(self) -> dict[str, int]:
        """Return the counts, for a checkpoint."""
        return {"taken": self.taken, "replayed": self.replayed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.taken, self._replayed_before = state["taken"], state["replayed"]

    def _graphed(self) -> GraphedFunction:
        model = self._model
        return GraphedFunction(
            "training_step", self._step, model, device=model.device, capturable=model.capturable
        )

    def _step(self, *inputs: Tensor) -> Mapping[str, Any]:
        assert self._position is not None
        here = replace(self._position, stage=self.stage)
        return _train(self._model, here, *inputs)


def _train(
    model: GenerativeModel, step: Step, images: Tensor, labels: Tensor | None = None
) -> Mapping[str, Any]:
    known = {} if labels is None else {"labels": labels}
    return model.training_step(images, step, **known)
