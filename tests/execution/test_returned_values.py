"""What a model returns is checked where it is first used, and the message names the method."""

import pytest

import bench

LOSSES = {
    "Number": ('{"loss": 1.0}', None),
    "Scalar": ('{"loss": loss, "mse": loss.detach(), "count": numpy.float32(2)}', None),
    "Nothing": ("None", "returned None"),
    "Bare": ("loss", "returned tensor(1., grad_fn="),
    "Pairs": ('(("loss", 1.0),)', "returned (('loss', 1.0),)"),
    "Named": ('{"generator": loss.detach(), "discriminator": -1.0}', None),
    "Empty": ("{}", "returned no losses"),
    "Vector": ('{"loss": loss.repeat(2)}', "returned a Tensor of shape (2,) under the key 'loss'"),
    "Words": ('{"loss": "1.0"}', "returned '1.0' under the key 'loss'"),
    "Extra": ('{"loss": 1.0, "mse": None}', "returned None under the key 'mse'"),
    "Numbered": ('{"loss": 1.0, 2: 1.0}', "returned 1.0 under the key 2"),
}
MODEL = """
import numpy
import torch
import toys

class {name}(toys.Steady):
    steps = 0

    def training_step(self, images, step):
        {name}.steps += 1
        loss = self.image.mean() + 1
        return {returned}
"""
OUTPUTS = {
    "Doubles": ("reconstruct", "images.double()", "gave torch.float64, expected a float32 tensor"),
    "Bytes": ("reconstruct", "images.byte()", "gave torch.uint8, expected a float32 tensor"),
    "Arrays": ("reconstruct", "images.numpy()", "gave ndarray, expected a float32 tensor"),
    "Tuples": ("reconstruct", "(images, None)", "gave tuple, expected a float32 tensor"),
    "Flat": ("reconstruct", "images.flatten(1)", "gave images of shape (24, 1024)"),
    "NoSamples": ("sample", "None", "gave NoneType, expected a float32 tensor"),
    "FewSamples": ("sample", "super().sample(n, generator)[:1]", "gave images of shape (1, 1,"),
}
OUTPUT = """
import toys

class {name}(toys.Steady):
    def {method}(self, {first}, generator):
        return {returned}
"""


@pytest.fixture
def run(plugins, tiny, tmp_path):
    """Install models, and run them; gives their rows by the name of the class."""

    def run(sources):
        names = {name.lower(): f"plugin_values:{name}" for name in sources}
        plugins("plugin_values", "\n".join(sources.values()), models=names)
        settings = [setting for setting in tiny if "fsvae" not in setting]
        asked = {"settings": settings, "metrics": "psnr,fad", "out": tmp_path / "run"}
        rows = bench.run(",".join(names), **asked)
        rows = rows[rows["status"] != "not_asked"]
        return {name: rows[rows["model"] == name.lower()] for name in sources}

    return run


def test_losses_are_checked_at_the_first_step(run):
    sources = {
        name: MODEL.format(name=name, returned=returned) for name, (returned, _) in LOSSES.items()
    }
    ran = run(sources)
    import plugin_values

    for name, (_, words) in LOSSES.items():
        failed = ran[name][ran[name]["status"] == "failed"]
        if words is None:
            assert failed.empty
            continue
        (reason,) = ran[name]["reason"].unique()
        assert set(ran[name]["status"]) == {"failed"}
        assert f"training_step of {name} {words}" in reason
        assert "return a dictionary of losses by name" in reason
        assert getattr(plugin_values, name).steps == 1


def test_losses_as_tensors_keep_no_graph_alive(run):
    remembering = MODEL.format(name="Remembering", returned="self.remembered(loss)") + (
        "\n    before = None"
        "\n    def remembered(self, loss):"
        "\n        assert self.before is None or self.before() is None, 'the loss is kept'"
        "\n        self.before = weakref.ref(loss)"
        "\n        return {'loss': loss}"
    )
    rows = run({"Remembering": f"import weakref\n{remembering}"})["Remembering"]
    assert "failed" not in set(rows["status"])


def test_images_are_checked_and_the_method_is_named(run):
    ran = run(
        {
            name: OUTPUT.format(
                name=name,
                method=method,
                first="n" if method == "sample" else "images",
                returned=returned,
            )
            for name, (method, returned, _) in OUTPUTS.items()
        }
    )
    for name, (method, _, words) in OUTPUTS.items():
        assert set(ran[name]["status"]) == {"failed"}
        (reason,) = ran[name]["reason"].unique()
        assert f"{method} {words}" in reason
