"""The papers' equations, written out slowly: what the models are held against.

Nothing here is shared with the models but the names of their weights. Every image is repeated for
each time step and goes through every convolution, every neuron steps through time, and every
prefix of a latent runs again from rest. Random numbers are drawn from a generator in the order
that the models draw them, so that both sides see the same.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Neuron:
    centre: float
    width: float
    decay: float = 0.25
    threshold: float = 0.2


def step_function(potential, neuron):
    fired = torch.where(potential > neuron.threshold, 1.0, 0.0).to(potential.dtype)
    inside = ((potential - neuron.centre).abs() < neuron.width / 2).to(potential.dtype)
    linear = potential * inside.detach() / neuron.width
    return fired + (linear - linear.detach())


def lif(currents, neuron):
    potential = torch.zeros_like(currents[0])
    output = torch.zeros_like(currents[0])
    outputs = []
    for current in currents:
        potential = neuron.decay * potential * (1 - output) + current
        output = step_function(potential, neuron)
        outputs.append(output)
    return torch.stack(outputs)


def batch_norm(values, gamma, beta, mean, variance, scale=1.0):
    shape = [1, 1, -1] + [1] * (values.dim() - 3)
    centred = values - mean.reshape(shape)
    normalised = scale * centred / (variance.reshape(shape) + 1e-5) ** 0.5
    return normalised * gamma.reshape(shape) + beta.reshape(shape)


def batch_statistics(values):
    """Mean, biased and unbiased variance over time, batch and space of (T, N, C, ...)."""
    per_channel = values.movedim(2, 0).flatten(1)
    count = per_channel.shape[1]
    mean = per_channel.sum(1) / count
    squares = ((per_channel - mean[:, None]) ** 2).sum(1)
    return mean, squares / count, squares / (count - 1)


def updated(running, new):
    return 0.9 * running + 0.1 * new.detach()


def read_out(inputs):
    last = len(inputs)
    total = torch.zeros_like(inputs[0])
    for t in range(1, last + 1):
        total = total + 0.8 ** (last - t) * inputs[t - 1]
    return torch.tanh(total)


def psp(train):
    potential = 0.0
    potentials = []
    for value in train:
        potential = potential + (value - potential) / 2
        potentials.append(potential)
    return potentials


def psp_mmd(posterior, prior, over_time):
    time_steps, n, channels = posterior.shape
    total = 0.0
    for i in range(n):
        for c in range(channels):
            q, p = psp(posterior[:, i, c]), psp(prior[:, i, c])
            squares = sum((q[t] - p[t]) ** 2 for t in range(time_steps))
            total = total + (squares / time_steps if over_time == "mean" else squares)
    return total / (n * channels)


def bernoulli_kl(posterior, prior, epsilon=1e-2):
    time_steps, n, channels = posterior.shape
    total = 0.0
    for i in range(n):
        for t in range(time_steps):
            for c in range(channels):
                q, p = posterior[t, i, c], prior[t, i, c]
                total = total + q * torch.log((q + epsilon) / (p + epsilon))
                total = total + (1 - q) * torch.log((1 - q + epsilon) / (1 - p + epsilon))
    return total / n


def rbf_mmd(posterior, prior):
    points = [*posterior, *prior]
    distances = [
        ((points[i] - points[j]) ** 2).sum().item()
        for i in range(len(points))
        for j in range(len(points))
        if i != j
    ]
    base = sum(distances) / len(distances) / 4

    def kernel(a, b):
        squared = ((a - b) ** 2).sum()
        return sum(torch.exp(-squared / (base * 2**i)) for i in range(5))

    def mean_kernel(first, second):
        values = [kernel(a, b) for a in first for b in second]
        return sum(values) / len(values)

    return (
        mean_kernel(posterior, posterior)
        + mean_kernel(prior, prior)
        - mean_kernel(posterior, prior)
        - mean_kernel(prior, posterior)
    )


def mean_squared_error(images, others):
    return ((images - others) ** 2).sum() / images.numel()


def convolution(values, weight, bias):
    return torch.stack([F.conv2d(value, weight, bias, stride=2, padding=1) for value in values])


def transposed_convolution(values, weight, bias):
    return torch.stack(
        [
            F.conv_transpose2d(value, weight, bias, stride=2, padding=1, output_padding=1)
            for value in values
        ]
    )


def linear(values, weight, bias):
    return torch.stack([value @ weight.T + bias for value in values])


class Network:
    """Weights by their names, with gradients, and running statistics that training updates."""

    def __init__(self, weights, training):
        self.training = training
        self.weights = {}
        for name, value in weights.items():
            self.weights[name] = value.detach().clone()
            if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
                self.weights[name].requires_grad_()

    def gradients(self, loss):
        names = [name for name, value in self.weights.items() if value.requires_grad]
        values = torch.autograd.grad(
            loss, [self.weights[name] for name in names], allow_unused=True
        )
        return dict(zip(names, values, strict=True))

    def named(self, prefix, end):
        names = []
        while f"{prefix}{len(names) + 1}{end}" in self.weights:
            names.append(f"{prefix}{len(names) + 1}")
        return names

    def norm(self, values, name, scale, training):
        gamma, beta = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        running = f"{name}.running_mean", f"{name}.running_var"
        if not training:
            mean, variance = (self.weights[key] for key in running)
            return batch_norm(values, gamma, beta, mean, variance, scale)
        mean, variance, unbiased = batch_statistics(values)
        for key, new in zip(running, (mean, unbiased), strict=True):
            self.weights[key] = updated(self.weights[key], new)
        return batch_norm(values, gamma, beta, mean, variance, scale)


class SpikingNetwork(Network):
    def __init__(self, weights, training, neuron, time_steps):
        super().__init__(weights, training)
        self.neuron = neuron
        self.time_steps = time_steps
        self.firing_rates = {}

    def layer(self, name, synapse, values, alpha=1.0, training=None):
        training = self.training if training is None else training
        weight, bias = self.weights[f"{name}.synapse.weight"], self.weights[f"{name}.synapse.bias"]
        currents = synapse(values, weight, bias)
        scale = alpha * self.neuron.threshold
        spikes = lif(self.norm(currents, f"{name}.norm", scale, training), self.neuron)
        self.firing_rates[name] = spikes.mean().item()
        return spikes

    def encoder(self, images):
        values = torch.stack([images] * self.time_steps)
        for name in self.named("encoder.convolutions.conv", ".synapse.weight"):
            values = self.layer(name, convolution, values)
        return self.layer("encoder.linear", linear, values.flatten(2))

    def decoder(self, latents):
        values = self.layer("decoder.linear", linear, latents)
        values = values.reshape(*values.shape[:2], -1, 2, 2)
        for name in self.named("decoder.convolutions.deconv", ".synapse.weight"):
            values = self.layer(name, transposed_convolution, values)
        weight = self.weights["decoder.readout.synapse.weight"]
        bias = self.weights["decoder.readout.synapse.bias"]
        return read_out(
            torch.stack([F.conv_transpose2d(value, weight, bias, padding=1) for value in values])
        )


class ESVAE(SpikingNetwork):
    def posterior_rate(self, images):
        return self.encoder(images).sum(0) / self.time_steps

    def prior_rate(self, noise):
        activations = noise @ self.weights["prior.0.weight"].T + self.weights["prior.0.bias"]
        return 1 / (1 + torch.exp(-activations))

    def noise(self, n, generator):
        return torch.randn((n, len(self.weights["prior.0.bias"])), generator=generator)

    def draw(self, rate, generator):
        uniform = torch.rand((self.time_steps, *rate.shape), generator=generator)
        spikes = []
        for u in uniform:
            fired = torch.where(rate > u, 1.0, 0.0).to(rate.dtype)
            inside = ((rate - u).abs() < 0.5).to(rate.dtype).detach()
            linear = rate * inside
            spikes.append(fired + (linear - linear.detach()))
        return torch.stack(spikes)

    def encode(self, images, generator):
        return self.draw(self.posterior_rate(images), generator)

    def reconstruct(self, images, generator):
        return self.decoder(self.encode(images, generator))

    def sample(self, n, generator):
        return self.decoder(self.draw(self.prior_rate(self.noise(n, generator)), generator))

    def losses(self, images, progress, generator):
        posterior = self.posterior_rate(images)
        prior = self.prior_rate(self.noise(len(images), generator))
        reconstructions = self.decoder(self.draw(posterior, generator))
        reconstruction_loss = mean_squared_error(reconstructions, images)
        mmd = rbf_mmd(posterior, prior)
        loss = reconstruction_loss + 1e-3 * mmd
        return {"loss": loss, "reconstruction_loss": reconstruction_loss, "mmd": mmd}


class FSVAE(SpikingNetwork):
    def __init__(
        self,
        weights,
        training,
        neuron,
        time_steps,
        k,
        prefix_statistics=True,
        divergence="mmd",
        over_time="mean",
        scheduled_sampling=True,
    ):
        super().__init__(weights, training, neuron, time_steps)
        self.k = k
        self.prefix_statistics = prefix_statistics
        self.divergence = divergence
        self.over_time = over_time
        self.scheduled_sampling = scheduled_sampling
        self.replaced = []

    def net(self, which, inputs, training):
        values = inputs
        for i in (1, 2, 3):
            values = self.layer(f"{which}.layers.linear{i}", linear, values, 2.0, training)
        return values.reshape(*values.shape[:2], -1, self.k)

    def pick(self, outputs, indices):
        return torch.stack(
            [
                torch.stack([outputs[n, c, indices[n, c]] for c in range(outputs.shape[1])])
                for n in range(len(outputs))
            ]
        )

    def indices(self, n, generator):
        channels = len(self.weights["encoder.linear.synapse.bias"])
        return torch.randint(self.k, (self.time_steps, n, channels), generator=generator)

    def posterior(self, encoded, indices):
        """z and the posterior's outputs; each z_t needs the posterior of its whole prefix."""
        training = self.training and self.prefix_statistics
        latents = [torch.zeros_like(encoded[0])]
        with torch.no_grad():
            for t in range(1, self.time_steps):
                inputs = torch.cat([encoded[:t], torch.stack(latents)], dim=2)
                outputs = self.net("posterior", inputs, training)
                latents.append(self.pick(outputs[t - 1], indices[t - 1]))
        inputs = torch.cat([encoded, torch.stack(latents)], dim=2)
        outputs = self.net("posterior", inputs, self.training)
        picked = [self.pick(outputs[t], indices[t]) for t in range(self.time_steps)]
        return torch.stack(picked), outputs

    def prior(self, latents, progress, generator):
        latents = list(latents.detach())
        if self.training and self.scheduled_sampling:
            draws = torch.rand(self.time_steps, generator=generator)
            for t in range(5, self.time_steps - 1):
                if draws[t] < 0.1 + (0.3 - 0.1) * progress:
                    latents[t] = self.own_output(latents[:t], generator)
                    self.replaced.append(t)
        return self.net("prior", self.with_rest(latents[:-1]), self.training)

    def own_output(self, latents, generator):
        with torch.no_grad():
            training = self.training and self.prefix_statistics
            outputs = self.net("prior", self.with_rest(latents), training)
        mean = outputs[-1].sum(-1) / self.k
        noise = torch.randn(mean.shape, generator=generator)
        return torch.where(mean + 1e-3 * noise > 0.5, 1.0, 0.0).to(mean.dtype)

    def with_rest(self, latents):
        return torch.stack([torch.zeros_like(latents[0]), *latents])

    def encode(self, images, generator):
        encoded = self.encoder(images)
        return self.posterior(encoded, self.indices(len(images), generator))[0]

    def reconstruct(self, images, generator):
        return self.decoder(self.encode(images, generator))

    def sample(self, n, generator):
        """Generation always uses the running statistics of the prior."""
        indices = self.indices(n, generator)
        latents = [torch.zeros(indices.shape[1:])]
        for t in range(self.time_steps):
            outputs = self.net("prior", torch.stack(latents), training=False)
            latents.append(self.pick(outputs[t], indices[t]))
        return self.decoder(torch.stack(latents[1:]))

    def losses(self, images, progress, generator):
        encoded = self.encoder(images)
        latents, posterior = self.posterior(encoded, self.indices(len(images), generator))
        prior = self.prior(latents, progress, generator)
        reconstruction_loss = mean_squared_error(self.decoder(latents), images)
        q, p = posterior.sum(-1) / self.k, prior.sum(-1) / self.k
        if self.divergence == "mmd":
            divergence = psp_mmd(q, p, self.over_time)
            loss = reconstruction_loss + divergence
        else:
            divergence = bernoulli_kl(q, p)
            loss = reconstruction_loss + 1e-4 * divergence
        return {
            "loss": loss,
            "reconstruction_loss": reconstruction_loss,
            self.divergence: divergence,
        }


class ANNVAE(Network):
    def block(self, name, synapse, values):
        weight, bias = self.weights[f"{name}.0.weight"], self.weights[f"{name}.0.bias"]
        one_step = synapse(values[None], weight, bias)
        values = self.norm(one_step, f"{name}.1", 1.0, self.training)[0]
        return torch.where(values > 0, values, 0.01 * values)

    def head(self, name, values):
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def posterior(self, images):
        values = images
        for name in self.named("encoder.conv", ".0.weight"):
            values = self.block(name, convolution, values)
        features = values.flatten(1)
        mean, log_variance = self.head("mean", features), self.head("log_variance", features)
        return torch.distributions.Normal(mean, torch.exp(log_variance) ** 0.5)

    def decoder(self, latents):
        values = self.head("decoder_input", latents)
        values = values.reshape(len(values), -1, 2, 2)
        for name in self.named("decoder.deconv", ".0.weight"):
            values = self.block(name, transposed_convolution, values)
        weight = self.weights["decoder.to_image.weight"]
        bias = self.weights["decoder.to_image.bias"]
        return torch.tanh(F.conv_transpose2d(values, weight, bias, padding=1))

    def draw(self, posterior, generator):
        noise = torch.randn(posterior.mean.shape, generator=generator)
        return posterior.mean + posterior.stddev * noise

    def encode(self, images, generator):
        return self.draw(self.posterior(images), generator)

    def reconstruct(self, images, generator):
        return self.decoder(self.encode(images, generator))

    def sample(self, n, generator):
        return self.decoder(torch.randn((n, len(self.weights["mean.bias"])), generator=generator))

    def losses(self, images, kl_weight, generator):
        posterior = self.posterior(images)
        reconstructions = self.decoder(self.draw(posterior, generator))
        reconstruction_loss = mean_squared_error(reconstructions, images)
        standard = torch.distributions.Normal(0.0, 1.0)
        divergences = torch.distributions.kl_divergence(posterior, standard)
        kl = divergences.sum() / len(images)
        loss = reconstruction_loss + kl_weight * kl
        return {"loss": loss, "reconstruction_loss": reconstruction_loss, "kl": kl}
