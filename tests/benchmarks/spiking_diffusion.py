"""Speed of both stages of Spiking-Diffusion and of its sampling, compared with loops over time.

The naive twin has the weights of the model and draws with the model's functions. It repeats its
input at each time step and evaluates every layer there. Both learn from images of noise: dense
products take as long for any image.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from turns import compared

from baselines.absorbing_diffusion import bound_weight, diffusion_loss, masked, sample_tokens
from baselines.spiking_diffusion import MASK, PRIOR
from baselines.vq_svae import TOKENS
from bench.model import Step
from bench.protocol import load_protocol
from bench.registry import backends, models
from bench.system.memory import keep_freed_memory

sys.path.append(str(Path(__file__).parents[1] / "baselines"))
import naive_vq

BATCH = 32
SAMPLES = 8
NETWORKS = {
    "official network, T = 16": ("spiking_diffusion_paper", "mnist", (1, 28, 28)),
    "the network of quick, T = 4": ("quick", "mnist", (1, 32, 32)),
}


def spiking_diffusion_against_naive():
    """Yield images per second and the ratio to the naive rate, for both networks."""
    keep_freed_memory()
    for network, built in NETWORKS.items():
        model = _built(*built)
        naive = _Naive(model)
        images = torch.rand((BATCH, *built[2])) * 2 - 1
        tokens = model.frozen_tokens(images)
        for stage in (TOKENS, PRIOR):
            step = Step(0.0, 1, stage=stage)
            learn = naive.learn_tokens if stage == TOKENS else partial(naive.learn_prior, tokens)
            what = f"{network}, batch {BATCH}, {stage}"
            train = partial(model.training_step, images, step)
            yield from compared(what, BATCH, partial(learn, images), train)
        model.eval()
        naive.stop_training()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            yield from compared(
                f"{network}, batch {SAMPLES}, sampling",
                SAMPLES,
                partial(naive.sample, generator),
                partial(model.sample, SAMPLES, generator),
                turns=3,
            )


def _built(protocol, dataset, image_shape):
    resolved = load_protocol(protocol).resolve("spiking_diffusion", dataset)
    torch.manual_seed(0)
    return models.load("spiking_diffusion")(image_shape, resolved, backends.load("fused")())


class _Autoencoder(naive_vq.VQSVAE):
    """The naive twin with one search for all codes: the other's loop over places is for tests."""

    def codes(self, feature):
        codebook = self.weights["quantiser.codebook"]
        flat = feature.movedim(1, -1)
        return (
            codebook[torch.cdist(flat.flatten(0, -2), codebook).argmin(1)]
            .reshape(flat.shape)
            .movedim(-1, 1)
        )


class _Naive:
    """The naive twin of a model, which the same optimiser trains."""

    def __init__(self, model):
        self.model = model
        self.autoencoder, self.denoiser = _Autoencoder(model), naive_vq.Denoiser(model)
        rates = {"lr": model.protocol.learning_rate, "weight_decay": model.protocol.weight_decay}
        self.optimizers = [
            torch.optim.AdamW(
                [
                    weight
                    for name, weight in network.weights.items()
                    if weight.requires_grad and name.startswith("denoiser") == of_prior
                ],
                **rates,
            )
            for network, of_prior in ((self.autoencoder, False), (self.denoiser, True))
        ]

    def learn_tokens(self, images):
        self._descend(self.optimizers[0], sum(self.autoencoder.losses(images)))

    def learn_prior(self, tokens, images):
        """Take a step on tokens; the images' own are computed as well, as the model does."""
        with torch.no_grad():
            self.autoencoder.codes(
                self.autoencoder.feature(self.autoencoder.encoder_spikes(images))
            )
        places = tokens[0].numel()
        step = torch.randint(1, places + 1, tokens.shape[:1])
        shown, hidden = masked(tokens, step, MASK, None)
        weight = bound_weight(step, places, self.model.model_options.bound_weights)
        logits = self.denoiser.logits(shown, step)
        self._descend(self.optimizers[1], diffusion_loss(logits, tokens, hidden, weight))

    def stop_training(self):
        self.autoencoder.training = self.denoiser.training = False

    def sample(self, generator):
        size = (SAMPLES, *self.model.map_size)
        temperature = self.model.model_options.temperature
        tokens = sample_tokens(self.denoiser.logits, size, MASK, temperature, generator)
        codes = self.autoencoder.weights["quantiser.codebook"][tokens].movedim(-1, 1)
        return torch.clamp(2 * self.autoencoder.output(self.autoencoder.generated(codes)), -1, 1)

    def _descend(self, optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


BENCHMARKS = (spiking_diffusion_against_naive,)
