"""Evaluations of the network of a sampler of many steps."""

import bench

STEPPING = """
import torch
from torch import nn
from toys import Steady


class Stepping(Steady):
    capabilities = frozenset({"sample"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.network = nn.Linear(image_shape[-1], image_shape[-1])

    def sampling_network(self):
        return self.network

    def sample(self, n, generator):
        images = torch.randn((n, *self.image.shape), generator=generator, device=generator.device)
        for _ in range(7):
            images = self.network(images)
        return images.clamp(-1, 1)
"""


def test_every_evaluation_and_its_operations_count(plugins, tiny, tmp_path):
    plugins("plugin_stepping", STEPPING, models={"stepping": "plugin_stepping:Stepping"})
    metrics = "network_evaluations,synaptic_operations_dense"
    rows = bench.run("stepping,ann_vae", settings=tiny, metrics=metrics, out=tmp_path / "run")
    rows = rows[rows["split"].fillna("generated") == "generated"].set_index(["model", "metric"])
    counted = rows.loc[("stepping", "network_evaluations")]
    assert (counted["value"], counted["n"]) == (7, 10)
    operations = rows.loc[("stepping", "synaptic_operations_dense")]
    # A line of 32 pixels is multiplied by a matrix, 32 lines an image.
    assert operations["value"] == 7 * 32**3
    one_pass = rows.loc[("ann_vae", "network_evaluations")]
    assert one_pass["status"] == "not_applicable"
    assert one_pass["reason"] == "the model samples in one pass"
