"""Class-conditional models: each method gets the labels of its images, from training to samples."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from contexts import cell_context
from tiny import TINY
from torch import nn

import bench
from bench.datasets.dataset_contract import describe
from bench.datasets.preprocessing import count_classes
from bench.datasets.resolve import open_dataset
from bench.evaluation.class_labels import drawn_labels
from bench.evaluation.passes import Passes
from bench.evaluation.showcase import showcase
from bench.protocol import load_protocol
from bench.testing import check_model

PAGE = Path(__file__).parents[1] / "docs" / "model.md"
MEANS = next(
    code
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if "class ClassMeans" in code
)


class Telling(toys.Steady):
    """Paints each image in the grey of its label, and each image that it sees with its own."""

    class_conditional = True
    capabilities = frozenset({"sample", "reconstruct", "encode", "decode", "sample_latents"})

    def __init__(self, image_shape, protocol, backend, classes):
        super().__init__(image_shape, protocol, backend)
        self.scale = nn.Parameter(torch.ones(()))
        self.classes, self.seen = classes, []

    def training_step(self, images, step, labels):
        self.seen.append((images, labels))
        return {"loss": 1.0}

    def paint(self, labels):
        grey = labels.float() / self.classes * self.scale
        return grey[:, None, None, None].expand(len(labels), *self.image_shape)

    def sample(self, n, generator, labels):
        return self.paint(labels)

    def reconstruct(self, images, generator, labels):
        return self.paint(labels)

    def encode(self, images, generator, labels):
        return labels.float()[:, None] * self.scale

    def sample_latents(self, n, generator):
        return torch.zeros(n, 1)

    def decode(self, latents, labels):
        return self.paint(labels)


class Deaf(Telling):
    def paint(self, labels):
        return super().paint(torch.zeros_like(labels))


@pytest.fixture
def means(plugins):
    plugins("plugin_means", MEANS, models={"class_means": "plugin_means:ClassMeans"})


@pytest.fixture
def context(tmp_path):
    """A cell's context with 40 images whose label is in their first pixel."""
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    images[:, 0, 0, 0] = labels = torch.arange(40) % 4
    settings = ["generated_images=30", "evaluation_batch_size=7", "noise_images=20"]
    protocol = load_protocol("smoke", [*settings, "latent_images=20"]).resolve("m", "d")
    return cell_context(
        protocol, images, train_labels=labels.long(), test_labels=labels.long(),
        class_counts=(10, 10, 10, 10),
    )  # fmt: skip


def first_pixels(originals):
    return ((originals[:, 0, 0, 0] + 1) * 127.5).round().long()


# A whole run


def test_samples_have_the_labels_of_their_classes(means, bench_cli, tmp_path):
    settings = [*TINY, "epochs=2", "train_images=600", "generated_images=50"]
    bench.run("class_means", settings=settings, metrics="fad", out=tmp_path / "run")
    file = tmp_path / "samples.npz"
    flags = ["--model", "class_means", "--n", 50, "--out", file]
    code, _, err = bench_cli("sample", tmp_path / "run", *flags)
    assert code == 0, err
    with np.load(file) as stored:
        images, labels = stored["arr_0"], stored["arr_1"]
    assert labels.shape == (50,)
    assert len(set(labels)) > 5
    with np.load(next((tmp_path / "run" / "cells").glob("class_means*/images.npz"))) as shown:
        samples = shown["samples"]
    protocol = load_protocol("smoke", settings).resolve("class_means", "digits")
    train = open_dataset("digits", tmp_path).load(protocol).train
    expected = np.stack([train.images[train.labels == k].mean(0) for k in range(10)])
    near = np.abs(images.transpose(0, 3, 1, 2)[:, None] - expected).mean((2, 3, 4)).argmin(1)
    assert (near == labels).all()
    near = np.abs(samples[:, None] - expected).mean((2, 3, 4)).argmin(1)
    assert (near == labels[: len(samples)]).all()


def test_a_dataset_without_classes_is_passed_over(means, bench_cli, tiny_flags, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", train_images=images[:64], test_images=images[64:])
    flags = [*tiny_flags, "--datasets", f"npz:{tmp_path / 'plain.npz'}", "--out", tmp_path / "run"]
    code, _, err = bench_cli("run", "--models", "class_means", *flags)
    assert code == 2
    assert "it is class-conditional, and the classes of the images are unknown" in err
    code, out, _ = bench_cli("run", "--models", "class_means,ann_vae", *flags, "--dry-run")
    assert code == 0
    assert re.search(r"class_means.*skipped", out)


def test_its_profile_is_measured(means, tmp_path):
    rows = bench.profile("class_means", settings=TINY, repeats=1)
    done = rows[(rows["quantity"] == "images_per_second") & (rows["status"] == "ok")]
    assert set(done["activity"]) == {"training", "sampling"}


# Each method


def test_every_pass_gives_the_labels_of_its_images(context):
    model = Telling((1, 4, 4), context.protocol, None, classes=4)
    passes = Passes(model.eval(), context, recorded=False)
    batches = [*passes.reconstructions(), *passes.noisy_reconstructions()]
    batches += [batch for batch in passes.partial_decodings() if batch.split == "test"]
    assert {batch.noise_kind for batch in batches} >= {None, "none"}
    with torch.no_grad():
        for batch in batches:
            assert torch.equal(batch.images, model.paint(first_pixels(batch.originals)))
        for batch in passes.latents():
            if batch.split != "prior":
                assert torch.equal(batch.latents[:, 0].long(), batch.labels)
        outputs = showcase(model, context).images
    assert torch.equal(outputs["reconstructions"], model.paint(first_pixels(outputs["inputs"])))


def test_samples_of_every_pass_have_the_same_labels(context):
    model = Telling((1, 4, 4), context.protocol, None, classes=4)
    passes = Passes(model.eval(), context, recorded=False)
    with torch.no_grad():
        made = torch.cat([batch.images for batch in passes.generated()])
        shown = showcase(model, context).images["samples"]
        expected = model.paint(drawn_labels(model, context.class_counts, 32, context.seed).values)
    assert torch.equal(made, expected[:30])
    assert torch.equal(shown, expected)


def test_labels_are_drawn_as_often_as_the_classes_occur():
    model = Telling((1, 4, 4), None, None, classes=4)
    drawn = drawn_labels(model, (1, 0, 3, 4), 8000, 5).values
    np.testing.assert_allclose(
        drawn.bincount(minlength=4) / 8000, [1 / 8, 0, 3 / 8, 1 / 2], atol=0.02
    )
    assert torch.equal(drawn_labels(model, (1, 0, 3, 4), 100, 5).values, drawn[:100])
    assert not torch.equal(drawn_labels(model, (1, 0, 3, 4), 8000, 6).values, drawn)


def test_training_gives_each_image_its_label(plugins, tmp_path):
    source = "from test_class_conditional import Telling\nSEEN = []\n"
    source += "class Kept(Telling):\n"
    source += "    def training_step(self, images, step, labels):\n"
    source += "        SEEN.append((images.clone(), labels.clone()))\n"
    source += "        return {'loss': 1.0}\n"
    plugins("plugin_kept", source, models={"kept": "plugin_kept:Kept"})
    bench.run("kept", settings=TINY, metrics="parameter_count", out=tmp_path / "run")
    import plugin_kept

    protocol = load_protocol("smoke", TINY).resolve("kept", "digits")
    train = open_dataset("digits", tmp_path).load(protocol).train
    known = {
        image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)
    }
    images, labels = map(torch.cat, zip(*plugin_kept.SEEN, strict=True))
    assert len(images) >= 64
    pixels = ((images + 1) * 127.5).round().byte().numpy()
    assert [known[image.tobytes()] for image in pixels] == labels.tolist()


# Checks and descriptions


def test_checks_of_a_class_conditional_model(means):
    failed = [result for result in check_model("class_means") if result.outcome == "failed"]
    assert failed == []
    outcomes = {result.check: result for result in check_model(Deaf)}
    ignored = outcomes["samples follow their labels"]
    assert ignored.outcome == "failed"
    assert "samples of class 0 and of class 1 are the same" in ignored.message


@pytest.mark.parametrize(
    ("train", "test", "counts"),
    [
        ([0, 0, 2], [1], (2, 0, 1)),
        ([0], [2, 3], (1, 0, 0, 0)),
        ([1, 900], [0], None),
        ([-1, 1], [0], None),
        (None, [0], None),
        ([0], None, None),
    ],
)
def test_classes_are_counted_from_labels_that_start_at_0(train, test, counts):
    for kind in (np.int64, np.uint64) if counts else (np.int64,):
        labels = [None if each is None else np.array(each, kind) for each in (train, test)]
        assert count_classes(*labels) == counts


def test_built_in_datasets_tell_their_classes(tmp_path):
    counts = describe(open_dataset("digits", tmp_path)).class_counts
    assert len(counts) == 10
    assert sum(counts) == 1437
