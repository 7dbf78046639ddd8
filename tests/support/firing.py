"""Firing rates of the layers of a model."""


def firing_rates(model):
    """A dictionary that gets the firing rate of each spiking layer when the model runs."""
    found = {}
    for name, layer in model.spiking_layers().items():
        layer.register_forward_hook(
            lambda _module, _inputs, output, name=name: found.update({name: output.mean().item()})
        )
    return found
