"""Training of a dataset's autoencoder: cached on disk, resumed after an interruption."""

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.datasets.batches import training_batches
from bench.metrics.extractors.autoencoder_network import AutoencoderNetwork
from bench.metrics.extractors.extractor import ExtractorContext
from bench.metrics.extractors.feature_cache import alone, entry_folder
from bench.protocol import Protocol
from bench.store.trained_weights import DamagedWeightsError, TrainedWeights
from bench.system.cuda_graphs import GraphedFunction
from bench.system.files import atomic
from bench.system.random_state import preserved_randomness

VERSION = "1"
SEED = 0
LEARNING_RATE = 1e-3
WEIGHTS_FILE = "weights.safetensors"
DIGEST_BYTES = hashlib.sha256().digest_size


def trained_autoencoder(
    context: ExtractorContext, content: Mapping[str, Any], name: str
) -> TrainedWeights:
    """Return the weights of the training images' autoencoder, from the cache or newly trained.

    Mean squared error, AdamW with learning rate 1e-3, the protocol's ``autoencoder_epochs`` and
    ``autoencoder_batch_size``, no flips. The random seed is fixed, so that all cells and seeds of a
    dataset share one autoencoder. An interrupted training resumes after the last complete epoch
    and, on a CPU, ends with bit-identical weights. If the checksum of a cached entry does not
    match, the autoencoder is trained again; if the cache is not writable, it is trained on every
    call.

    Args:
        context: images and settings of the cell.
        content: result of :func:`training_content`.
        name: name of the autoencoder's cell.
    """
    entry = entry_folder(context.resources.cache / "autoencoders", content)
    with alone(entry):
        cached = _read_weights(entry, content) or _read_old_weights(entry)
        if cached is not None:
            return TrainedWeights(name, context.dataset, content, cached)
        network = fresh_network(context, content["latent_size"])
        _train(network, context, entry / "checkpoint.pt")
        tensors = {key: value.cpu() for key, value in network.state_dict().items()}
        weights = TrainedWeights(name, context.dataset, content, tensors)
        _write_weights(entry, weights)
    return weights


def keep_trained(weights: TrainedWeights, cache: Path) -> None:
    """Put weights that were trained elsewhere into the cache, unless it has an entry for them.

    Args:
        weights: trained weights of an autoencoder.
        cache: the cache folder.
    """
    entry = entry_folder(cache / "autoencoders", weights.content)
    with alone(entry):
        if _read_weights(entry, weights.content) is None and _read_old_weights(entry) is None:
            _write_weights(entry, weights)


def training_content(
    fingerprint: str, protocol: Protocol, train_images: int, latent_size: int
) -> Mapping[str, Any]:
    """Return everything that the weights depend on, as JSON values.

    Args:
        fingerprint: hash of the dataset's content.
        protocol: protocol, resolved for the model and dataset.
        train_images: number of training images.
        latent_size: number of latents D.
    """
    return {
        "dataset_fingerprint": fingerprint,
        "train_images": train_images,
        "image_size": protocol.image_size,
        "center_crop": protocol.center_crop,
        "interpolation": protocol.interpolation,
        "epochs": protocol.autoencoder_epochs,
        "batch_size": protocol.autoencoder_batch_size,
        "latent_size": latent_size,
        "version": VERSION,
    }


def fresh_network(context: ExtractorContext, latent_size: int) -> AutoencoderNetwork:
    """Build the untrained autoencoder from a fixed seed, and leave all random generators alone.

    Args:
        context: images and settings of the cell.
        latent_size: number of latents D.
    """
    with preserved_randomness():
        torch.manual_seed(SEED)
        channels = context.train_images.shape[1]
        network = AutoencoderNetwork(channels, context.protocol.image_size, latent_size)
    return network.to(context.device)


class _Learner:
    """An autoencoder and its optimiser; on a GPU a step of a full batch is a CUDA graph."""

    def __init__(self, network: AutoencoderNetwork, batch_size: int) -> None:
        device = next(network.parameters()).device
        self.network, self._batch_size = network, batch_size
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=LEARNING_RATE, capturable=device.type == "cuda"
        )
        self._graph = GraphedFunction(
            "a step of the autoencoder", self._step, network, device=device, capturable=True
        )

    def learn(self, batch: Tensor) -> None:
        """Take a step on a batch ``(N, C, H, W)``."""
        step = self._graph if len(batch) == self._batch_size else self._step
        step(batch)

    def _step(self, batch: Tensor) -> Tensor:
        # An extractor can be loaded while gradients are disabled.
        with torch.enable_grad():
            loss = F.mse_loss(self.network(batch), batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _train(network: AutoencoderNetwork, context: ExtractorContext, checkpoint: Path) -> None:
    batch_size = min(context.protocol.autoencoder_batch_size, len(context.train_images))
    learner = _Learner(network, batch_size)
    order = torch.Generator().manual_seed(SEED)
    first = 0
    state = _read_checkpoint(checkpoint)
    if state is not None:
        network.load_state_dict(state["network"])
        learner.optimizer.load_state_dict(state["optimizer"])
        order.set_state(state["order"])
        first = state["epochs"]
    network.train()
    for epoch in range(first, context.protocol.autoencoder_epochs):
        _train_epoch(learner, order, context, epoch)
        state = {
            "network": network.state_dict(),
            "optimizer": learner.optimizer.state_dict(),
            "order": order.get_state(),
            "epochs": epoch + 1,
        }
        with contextlib.suppress(OSError):
            _write_checkpoint(checkpoint, state)


def _train_epoch(
    learner: _Learner, order: torch.Generator, context: ExtractorContext, epoch: int
) -> None:
    protocol, images = context.protocol, context.train_images
    stage = f"training the autoencoder, epoch {epoch + 1}/{protocol.autoencoder_epochs}"
    done = 0
    size = protocol.autoencoder_batch_size
    for batch, _ in training_batches(images, None, size, order, flip=False):
        learner.learn(batch)
        done += len(batch)
        context.reporter.evaluated(stage, done, len(images))


def _write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write the SHA-256 of the saved state, followed by the saved state, to one file."""
    payload = _saved(state)
    with atomic(path) as file:
        file.write(hashlib.sha256(payload).digest() + payload)


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the state that was written last; None if it is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def _write_weights(entry: Path, weights: TrainedWeights) -> None:
    """Write the weights of the entry, if it can be written."""
    with contextlib.suppress(OSError):
        with atomic(entry / WEIGHTS_FILE) as file:
            file.write(weights.to_bytes())
        (entry / "checkpoint.pt").unlink(missing_ok=True)


def _read_weights(entry: Path, content: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
    """Return the weights of the entry; None if they are missing, damaged or of another entry."""
    try:
        weights = TrainedWeights.from_bytes((entry / WEIGHTS_FILE).read_bytes())
    except (OSError, DamagedWeightsError):
        return None
    return weights.tensors if weights.content == content else None


def _read_old_weights(entry: Path) -> Mapping[str, Tensor] | None:
    """Return the weights of an entry of an earlier release; None if it is missing or damaged."""
    try:
        checksum = json.loads((entry / "content.json").read_text(encoding="utf-8"))["sha256"]
        payload = (entry / "weights.pt").read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if hashlib.sha256(payload).hexdigest() != checksum:
        return None
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
