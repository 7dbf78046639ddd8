"""Naive ESVAE and FSVAE, computed as the papers' public code does: the baseline of the speed.

Images are repeated for each time step and go through 3-D convolutions with a kernel of one in
time, the last dimension. Each layer of neurons is a Python loop over time. Each prefix of a latent
runs again from the resting state. Random numbers are drawn in the models' order, so that equal
seeds give equal results. Only the names of the weights are shared with the models.
"""

import torch
import torch.nn.functional as F

DECAY, THRESHOLD = 0.25, 0.2


class Fire(torch.autograd.Function):
    """Step function at the threshold, with the official code's window as surrogate gradient."""

    @staticmethod
    def forward(ctx, potential):
        ctx.save_for_backward(potential)
        return (potential > THRESHOLD).to(potential.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (potential,) = ctx.saved_tensors
        return gradient * (potential.abs() < 0.5)


class Draw(torch.autograd.Function):
    """``[rate > uniform]`` with the window of ESVAE as surrogate gradient."""

    @staticmethod
    def forward(ctx, rate, uniform):
        ctx.save_for_backward(rate, uniform)
        return (rate > uniform).to(rate.dtype)

    @staticmethod
    def backward(ctx, gradient):
        rate, uniform = ctx.saved_tensors
        return gradient * ((rate - uniform).abs() < 0.5), None


def neurons(currents):
    """Return the spikes of currents, both (..., T)."""
    spikes = torch.zeros_like(currents)
    potential = output = torch.zeros_like(currents[..., 0])
    for t in range(currents.shape[-1]):
        potential = DECAY * potential * (1 - output) + currents[..., t]
        output = Fire.apply(potential)
        spikes[..., t] = output
    return spikes


class Network:
    """The weights of a model, and its layers one by one."""

    def __init__(self, model):
        self.protocol = model.protocol
        self.training = model.training
        self.weights = {}
        for name, value in model.state_dict().items():
            self.weights[name] = value.clone().requires_grad_("running" not in name)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = [
            {**group, "params": [self.weights[names[id(p)]] for p in group["params"]]}
            for group in model.parameter_groups()
        ]
        protocol = model.protocol
        self.optimizer = torch.optim.AdamW(
            groups, protocol.effective_learning_rate, weight_decay=protocol.weight_decay
        )

    def training_step(self, images, progress=0.5, generator=None):
        self.optimizer.zero_grad()
        losses = self.losses(images, progress, generator)
        losses["loss"].backward()
        self.optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def spiking(self, name, synapse, values, alpha=1.0, training=None):
        """A layer (N, C, ..., T) of synapses, tdBN and neurons."""
        weight, bias = self.weights[f"{name}.synapse.weight"], self.weights[f"{name}.synapse.bias"]
        normalised = F.batch_norm(
            synapse(values, weight, bias),
            self.weights[f"{name}.norm.running_mean"],
            self.weights[f"{name}.norm.running_var"],
            self.weights[f"{name}.norm.weight"] * alpha * THRESHOLD,
            self.weights[f"{name}.norm.bias"],
            self.training if training is None else training,
        )
        return neurons(normalised)

    def named(self, prefix):
        return [
            name.removesuffix(".synapse.weight")
            for name in self.weights
            if name.startswith(prefix) and name.endswith(".synapse.weight")
        ]

    def encoder(self, images):
        values = torch.stack([images] * self.protocol.time_steps, dim=-1)
        for name in self.named("encoder.convolutions"):
            values = self.spiking(name, convolution, values)
        return self.spiking("encoder.linear", linear, values.flatten(1, 3))

    def decode(self, latents):
        values = self.spiking("decoder.linear", linear, latents)
        values = values.unflatten(1, (-1, 2, 2))
        for name in self.named("decoder.convolutions"):
            values = self.spiking(name, transposed_convolution, values)
        name = "decoder.readout.synapse"
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        outputs = F.conv_transpose3d(values, weight[..., None], bias, 1, (1, 1, 0))
        potential = 0.0
        for t in range(outputs.shape[-1]):
            potential = 0.8 * potential + outputs[..., t]
        return torch.tanh(potential)

    def reconstruct(self, images, generator):
        return self.decode(self.encode(images, generator))

    def sample(self, n, generator):
        return self.decode(self.sample_latents(n, generator))


def convolution(values, weight, bias):
    return F.conv3d(values, weight[..., None], bias, (2, 2, 1), (1, 1, 0))


def transposed_convolution(values, weight, bias):
    return F.conv_transpose3d(values, weight[..., None], bias, (2, 2, 1), (1, 1, 0), (1, 1, 0))


def linear(values, weight, bias):
    return F.linear(values.transpose(1, 2), weight, bias).transpose(1, 2)


def time_last(values):
    return values.movedim(0, -1)


class ESVAE(Network):
    def rate(self, images):
        return self.encoder(images).mean(-1)

    def prior_rate(self, n, generator):
        noise = torch.randn((n, self.protocol.latent_size), generator=generator)
        weight, bias = self.weights["prior.0.weight"], self.weights["prior.0.bias"]
        return torch.sigmoid(F.linear(noise, weight, bias))

    def draw(self, rate, generator):
        uniform = torch.rand((self.protocol.time_steps, *rate.shape), generator=generator)
        return Draw.apply(rate[..., None].expand(*rate.shape, len(uniform)), time_last(uniform))

    def encode(self, images, generator):
        return self.draw(self.rate(images), generator)

    def sample_latents(self, n, generator):
        return self.draw(self.prior_rate(n, generator), generator)

    def losses(self, images, progress, generator):
        posterior, prior = self.rate(images), self.prior_rate(len(images), generator)
        reconstruction_loss = F.mse_loss(self.decode(self.draw(posterior, generator)), images)
        mmd = rbf_mmd(posterior, prior)
        loss = reconstruction_loss + 1e-3 * mmd
        return {"loss": loss, "reconstruction_loss": reconstruction_loss, "mmd": mmd}


def rbf_mmd(posterior, prior):
    pooled = torch.cat([posterior, prior])
    squared = ((pooled[None] - pooled[:, None]) ** 2).sum(2)
    base = squared.detach().sum() / (len(pooled) ** 2 - len(pooled)) / 4
    kernel = sum(torch.exp(-squared / (base * 2**i)) for i in range(5))
    n = len(posterior)
    return (kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]).mean()


class FSVAE(Network):
    def __init__(self, model):
        super().__init__(model)
        self.options = model.model_options

    def net(self, which, inputs, training):
        values = inputs
        for i in (1, 2, 3):
            values = self.spiking(f"{which}.layers.linear{i}", linear, values, 2.0, training)
        return values.unflatten(1, (-1, self.options.k))

    def statistics(self):
        return self.training and self.options.posterior_statistics == "prefix"

    def indices(self, n, generator):
        size = (self.protocol.time_steps, n, self.protocol.latent_size)
        return time_last(torch.randint(self.options.k, size, generator=generator))

    def posterior(self, encoded, generator):
        indices = self.indices(len(encoded), generator)
        latents = torch.zeros_like(encoded[..., :1])
        with torch.no_grad():
            for t in range(encoded.shape[-1] - 1):
                inputs = torch.cat([encoded[..., : t + 1], latents], dim=1)
                outputs = self.net("posterior", inputs, self.statistics())
                latents = torch.cat([latents, pick(outputs, indices, t)], dim=-1)
        outputs = self.net("posterior", torch.cat([encoded, latents], dim=1), self.training)
        picked = [pick(outputs, indices, t) for t in range(encoded.shape[-1])]
        return torch.cat(picked, dim=-1), outputs

    def prior(self, latents, progress, generator):
        latents = latents.detach()
        if self.training and self.options.scheduled_sampling:
            latents = latents.clone()
            replaced = torch.rand(latents.shape[-1], generator=generator) < 0.1 + 0.2 * progress
            for t in range(5, latents.shape[-1] - 1):
                if replaced[t]:
                    latents[..., t] = self.own_output(latents[..., :t], generator)
        return self.net("prior", after_rest(latents[..., :-1]), self.training)

    def own_output(self, latents, generator):
        with torch.no_grad():
            outputs = self.net("prior", after_rest(latents), self.statistics())
        mean = outputs[..., -1].mean(2)
        noise = torch.randn(mean.shape, generator=generator)
        return (mean + 1e-3 * noise > 0.5).to(mean.dtype)

    def encode(self, images, generator):
        return self.posterior(self.encoder(images), generator)[0]

    def sample_latents(self, n, generator):
        indices = self.indices(n, generator)
        latents = torch.zeros((n, self.protocol.latent_size, 1))
        for t in range(self.protocol.time_steps):
            outputs = self.net("prior", latents, False)
            latents = torch.cat([latents, pick(outputs, indices, t)], dim=-1)
        return latents[..., 1:]

    def losses(self, images, progress, generator):
        latents, posterior = self.posterior(self.encoder(images), generator)
        prior = self.prior(latents, progress, generator)
        reconstruction_loss = F.mse_loss(self.decode(latents), images)
        mmd = psp_mmd(posterior.mean(2), prior.mean(2))
        loss = reconstruction_loss + mmd
        return {"loss": loss, "reconstruction_loss": reconstruction_loss, "mmd": mmd}


def pick(outputs, indices, t):
    """Select the spikes (N, C, 1) at time t by index, from outputs (N, C, k, T)."""
    return outputs[..., t].gather(2, indices[..., t : t + 1])


def after_rest(latents):
    return F.pad(latents, (1, 0))


def psp_mmd(posterior, prior):
    total, q, p = 0.0, 0.0, 0.0
    for t in range(posterior.shape[-1]):
        q = q + (posterior[..., t] - q) / 2
        p = p + (prior[..., t] - p) / 2
        total = total + ((q - p) ** 2).mean()
    return total / posterior.shape[-1]
