"""SGAD's read-out: attention between each step's image and a memory (arXiv:2305.10246)."""

import math

import torch
from torch import Tensor, nn

from baselines.gan_networks import to_image
from bench.backend import SpikingBackend
from bench.model import ImageShape

ATTENTION_SIZE = 256
SHARED_SIZE = 1024


class AttentionDecoding(nn.Module):
    """Weighted decoding: a memory of the images of all steps, by attention.

    ``y_t = sigmoid(W s_t + b)`` is the image of a step, and ``m_1 = y_1``. For each later step, the
    memory is the query and both are keys, as in the official code; the paper's figure has it the
    other way round:

        a, b = softmax(<W_q m, W_k m> / sqrt(256), <W_q m, W_k y_t> / sqrt(256))
        m <- a * m + b * y_t

    The image is the last memory. RGB images first pass one shared linear layer and a ReLU.

    Args:
        image_shape: shape of the images, ``(C, H, W)``.
        backend: builds the synapses.
    """

    def __init__(self, image_shape: ImageShape, backend: SpikingBackend) -> None:
        super().__init__()
        channels, height, width = image_shape
        features = channels * height * width
        self.synapse = backend.fastest(to_image(image_shape))
        self.shared = nn.Sequential()
        if channels > 1:
            self.shared.extend([nn.Linear(features, SHARED_SIZE), nn.ReLU()])
            features = SHARED_SIZE
        self.query = nn.Linear(features, ATTENTION_SIZE)
        self.key = nn.Linear(features, ATTENTION_SIZE)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` for spikes ``(T, N, C', H / 2, W / 2)``."""
        currents: Tensor = self.synapse(spikes.flatten(0, 1))
        return self.memory(currents.sigmoid().unflatten(0, spikes.shape[:2]))

    def memory(self, images: Tensor) -> Tensor:
        """Return the last memory ``(N, C, H, W)`` of the steps' images ``(T, N, C, H, W)``."""
        keys = self.key(self.shared(images.flatten(2)))
        memory = images[0]
        for image, key in zip(images[1:], keys[1:], strict=True):
            kept, added = self.weights(memory, key)
            memory = kept * memory + added * image
        return memory

    def weights(self, memory: Tensor, key: Tensor) -> Tensor:
        """Return the weights of memory ``(N, C, H, W)`` and image, ``(2, N, 1, 1, 1)``.

        Args:
            memory: memory before the step.
            key: key of the step's image, ``(N, 256)``.
        """
        features = self.shared(memory.flatten(1))
        query, own_key = self.query(features), self.key(features)
        scores = torch.stack([(query * own_key).sum(-1), (query * key).sum(-1)])
        return (scores / math.sqrt(ATTENTION_SIZE)).softmax(0)[..., None, None, None]
