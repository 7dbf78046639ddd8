import dataclasses
import functools
import hashlib
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bench
from bench import registry
from bench.datasets.batches import evaluation_batches, to_unit_range
from bench.datasets.digits import Digits
from bench.datasets.torchvision import MNIST, FashionMNIST
from bench.errors import BenchError, SkippedError
from bench.metrics import uncertainty
from bench.metrics.extractors.autoencoder import Autoencoder, OfficialAutoencoder
from bench.metrics.extractors.autoencoder_network import AutoencoderNetwork
from bench.metrics.extractors.extractor import ExtractorContext, Extractors
from bench.metrics.fad import FAD, InfiniteFAD, OfficialFAD
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.metrics.frechet import frechet_distance, moments
from bench.metrics.metric import ModelFacts
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord
from bench.store.trained_weights import TrainedWeights
from bench.system.paths import Resources
from bench.system.progress import WorkReporter


class Interrupt(WorkReporter):
    """Stops the training of the autoencoder in the middle of an epoch, once."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.told = []

    def evaluated(self, stage, done, total, detail=""):
        self.told.append(stage)
        if f"epoch {self.epoch}/" in stage and 0 < done < total:
            raise KeyboardInterrupt


@functools.cache
def prepared(dataset_class, root, settings):
    protocol = load_protocol("smoke", settings).resolve("any", dataset_class.name)
    dataset = dataset_class(root)
    return protocol, dataset.load(protocol), dataset.info().fingerprint


def context_of(dataset, cache, *settings, weights=None, data_root=None, **changes):
    protocol, data, fingerprint = prepared(type(dataset), dataset.root, settings)
    context = ExtractorContext(
        dataset=dataset.name,
        fingerprint=fingerprint,
        protocol=protocol,
        device=torch.device("cpu"),
        train_images=torch.from_numpy(data.train.images),
        test_images=torch.from_numpy(data.test.images),
        resources=Resources(data_root or dataset.root, weights or {}, cache),
        reporter=WorkReporter(),
    )
    return dataclasses.replace(context, **changes)


def digits(tmp_path, *settings, **changes):
    tiny = ("train_images=60", "autoencoder_epochs=3", "autoencoder_batch_size=20", *settings)
    return context_of(Digits(Path()), tmp_path / "cache", *tiny, **changes)


def shown(metric_class, context, images, batch_size=50):
    """What the metric says of ``images`` in [-1, 1], shown in batches."""
    extractors = Extractors(context)
    metric = metric_class(context.protocol)
    features = GeneratedFeatures(extractors)
    for batch in images.split(batch_size):
        features.add(metric.extractors[0], batch)
    facts = ModelFacts(0, 0, TrainingRecord((), {}, None), None, extractors, features)
    (found,) = metric.compute(facts)
    return found


def entry(context):
    (folder,) = (context.resources.cache / "autoencoders").iterdir()
    return folder


# The published autoencoders, on real images.


@pytest.fixture
def published_data(real_data):
    if not (real_data / "fad").is_dir():
        pytest.skip("no published autoencoders in ../shared/data")
    return real_data


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST])
def test_the_real_test_set_has_the_published_statistics_in_batches_of_256(
    published_data, tmp_path, dataset
):
    context = context_of(dataset(published_data), tmp_path, "train_images=100")
    extractor = OfficialAutoencoder(context)
    batches = evaluation_batches(context.test_images, 256)
    found = moments(torch.cat([extractor(batch).pool for batch in batches]))
    assert found.n == 10_000
    assert frechet_distance(found.mean, found.covariance, *extractor.statistics) < 1e-6


def test_fad_notices_halved_contrast_of_real_images_and_the_official_one_does_not(
    published_data, tmp_path
):
    context = context_of(MNIST(published_data), tmp_path, "train_images=100")
    images = to_unit_range(context.test_images)
    official = [shown(OfficialFAD, context, images * contrast, 250) for contrast in (1, 0.5)]
    # Batches of 128 against statistics of batches of 256: not zero, but blind to the contrast.
    assert official[0].value < 0.05
    assert official[1].value == pytest.approx(official[0].value, abs=1e-3)
    same, halved = (shown(FAD, context, images * contrast, 250) for contrast in (1, 0.5))
    assert same.value < 1e-6
    assert halved.value > 100
    assert same.n == halved.n == official[0].n == 10_000
    assert same.extractor_sha256 == official[0].extractor_sha256
    assert "published" in same.extractor
    assert "batch statistics, published reference statistics" in official[0].extractor
    # Evaluation mode is another measure: the published statistics do not belong to it.
    latents = moments(Extractors(context).reference("autoencoder").pool)
    published = OfficialAutoencoder(context).statistics
    assert frechet_distance(latents.mean, latents.covariance, *published) > 0.1


@pytest.mark.parametrize("change", ["fingerprint", "interpolation", "image_size", "absent"])
def test_the_published_autoencoder_is_used_on_its_own_images_only(published_data, tmp_path, change):
    settings = ["train_images=20", "autoencoder_epochs=1", "test_images=20"]
    settings += {"interpolation": ["interpolation=box"], "image_size": ["image_size=64"]}.get(
        change, []
    )
    context = context_of(MNIST(published_data), tmp_path, *settings)
    if change == "fingerprint":
        context = dataclasses.replace(context, fingerprint="0" * 64)
    if change == "absent":
        context = dataclasses.replace(
            context, resources=dataclasses.replace(context.resources, data_root=tmp_path)
        )
    extractor = OfficialAutoencoder(context)
    assert "trained on 20 images, 1 epochs" in extractor.description
    assert extractor.statistics is None
    assert extractor(torch.zeros(2, *context.train_images.shape[1:])).pool.shape == (2, 64)


def test_published_weights_given_by_hand(published_data, tmp_path):
    file = tmp_path / "autoencoder"
    shutil.copy(published_data / "fad" / "stat_checkpoints" / "mnist_64.pth", file)
    context = context_of(
        MNIST(published_data), tmp_path, "train_images=100", data_root=tmp_path,
        weights={"fad_mnist": file},
    )  # fmt: skip
    extractor = OfficialAutoencoder(context)
    assert "published, mnist_64.pth" in extractor.description
    assert "reference in batches of 256" in extractor.description
    images = to_unit_range(context.test_images)
    assert shown(OfficialFAD, context, images).value == pytest.approx(0.0301, abs=1e-3)


@pytest.mark.parametrize("file", ["stat_checkpoints/mnist_64.pth", "stats/mnist_test_64.npz"])
def test_a_published_file_that_is_altered_is_refused(published_data, tmp_path, file):
    shutil.copytree(published_data / "fad", tmp_path / "fad")
    victim = tmp_path / "fad" / file
    victim.parent.chmod(0o755)
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    context = context_of(MNIST(published_data), tmp_path, "train_images=100", data_root=tmp_path)
    with pytest.raises(BenchError, match=rf"{victim.name} is not the published file"):
        OfficialAutoencoder(context)


def test_published_statistics_are_those_of_the_test_split(published_data, tmp_path):
    context = context_of(MNIST(published_data), tmp_path, "train_images=100")
    protocol = context.protocol.customised({"reference_split": "train"}).resolve("any", "mnist")
    context = dataclasses.replace(context, protocol=protocol)
    extractor = OfficialAutoencoder(context)
    assert extractor.statistics is None
    assert "published, mnist_64.pth" in extractor.description


# The suite's own autoencoder.


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (64, 1), (64, 3)])
def test_the_network_gives_images_of_the_size_it_gets(size, channels):
    network = AutoencoderNetwork(channels, size, 128)
    images = torch.zeros(2, channels, size, size)
    assert network.encode(images).shape == (2, 128)
    assert network(images).shape == images.shape
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == (
        4 if size == 32 else 5
    )


def test_another_image_size_is_skipped_with_the_way_out(tmp_path):
    with pytest.raises(SkippedError, match="28x28, 32x32 and 64x64 images, not 48x48"):
        Autoencoder(digits(tmp_path, "image_size=48"))


def test_images_of_28x28_are_padded_with_the_lowest_value(tmp_path):
    context = digits(tmp_path, "image_size=28")
    extractor = Autoencoder(context)
    images = to_unit_range(context.test_images)
    assert images.shape[2:] == (28, 28)
    assert "28x28 padded to 32x32 with -1" in extractor.description
    framed = torch.full((len(images), 1, 32, 32), -1.0)
    framed[..., 2:30, 2:30] = images
    network = AutoencoderNetwork(1, 32, 128)
    network.load_state_dict(extractor.weights.tensors)
    with torch.no_grad():
        expected, whole = network.eval().encode(framed), network(framed)
    torch.testing.assert_close(extractor(images).pool, expected)
    torch.testing.assert_close(extractor.reconstruct(images), whole[..., 2:30, 2:30])
    assert shown(FAD, context, images).value == pytest.approx(0, abs=1e-6)


def test_fad_is_zero_on_the_reference_and_grows_with_lost_contrast(tmp_path):
    context = digits(tmp_path)
    images = to_unit_range(context.test_images)
    values = [shown(FAD, context, images * contrast).value for contrast in (1, 0.8, 0.5)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert 0.01 < values[1] < values[2]
    official = [shown(OfficialFAD, context, images * contrast).value for contrast in (1, 0.5)]
    assert official[1] == pytest.approx(official[0], rel=0.01)


def test_the_autoencoder_is_shared_between_cells_and_leaves_random_state_alone(tmp_path):
    context = digits(tmp_path)
    state, drawn = torch.get_rng_state(), random.getstate()
    first = Autoencoder(context)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == drawn
    # Trained in the first cell, so there is nothing to interrupt in the second.
    second = Autoencoder(dataclasses.replace(context, reporter=Interrupt(1)))
    official = OfficialAutoencoder(dataclasses.replace(context, reporter=Interrupt(1)))
    assert first.sha256 == second.sha256 == official.sha256
    images = to_unit_range(context.test_images)
    assert torch.equal(first(images).pool, second(images).pool)
    assert {file.name for file in entry(context).iterdir()} == {"weights.safetensors", ".lock"}
    stored = load_file(entry(context) / "weights.safetensors")
    assert sorted(stored) == sorted(first._network.state_dict())


@pytest.mark.parametrize(
    "other", ["autoencoder_epochs=2", "autoencoder_batch_size=15", "train_images=40"]
)
def test_what_moves_the_weights_makes_another_autoencoder(tmp_path, other):
    first = Autoencoder(digits(tmp_path))
    assert Autoencoder(digits(tmp_path, other)).sha256 != first.sha256
    assert len(list((tmp_path / "cache" / "autoencoders").iterdir())) == 2


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path, epoch):
    whole = Autoencoder(digits(tmp_path / "whole"))
    context = digits(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Autoencoder(dataclasses.replace(context, reporter=Interrupt(epoch)))
    resumed = Interrupt(0)
    with torch.no_grad():
        again = Autoencoder(dataclasses.replace(context, reporter=resumed))
    assert resumed.told[0] == f"training the autoencoder, epoch {epoch}/3"
    assert again.sha256 == whole.sha256


def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path):
    whole = Autoencoder(digits(tmp_path / "whole"))
    context = digits(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Autoencoder(dataclasses.replace(context, reporter=Interrupt(3)))
    flip_a_bit(entry(context) / "checkpoint.pt")
    reporter = Interrupt(0)
    again = Autoencoder(dataclasses.replace(context, reporter=reporter))
    assert "epoch 1/3" in reporter.told[0]
    assert again.sha256 == whole.sha256


@pytest.mark.parametrize("damage", ["altered", "truncated", "empty", "no metadata", "another's"])
def test_a_damaged_entry_is_trained_anew(tmp_path, damage):
    context = digits(tmp_path)
    first = Autoencoder(context)
    weights = entry(context) / "weights.safetensors"
    match damage:
        case "altered":
            flip_a_bit(weights)
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "empty":
            weights.write_bytes(b"")
        case "no metadata":
            save_file(load_file(weights), weights)
        case "another's":
            other = digits(tmp_path / "other", "autoencoder_epochs=2")
            Autoencoder(other)
            shutil.copy(entry(other) / "weights.safetensors", weights)
    reporter = Interrupt(0)
    again = Autoencoder(dataclasses.replace(context, reporter=reporter))
    assert "epoch 1/3" in reporter.told[0]
    assert again.sha256 == first.sha256
    content = TrainedWeights.from_bytes(weights.read_bytes()).content
    assert content["epochs"] == 3


def as_an_earlier_release(entry, extractor):
    """Rewrite an entry of the cache with the weights in PyTorch's format."""
    (entry / "weights.safetensors").unlink()
    torch.save(extractor._network.state_dict(), entry / "weights.pt")
    digest = hashlib.sha256((entry / "weights.pt").read_bytes()).hexdigest()
    (entry / "content.json").write_text(json.dumps({"content": {}, "sha256": digest}))
    return entry / "weights.pt"


@pytest.mark.parametrize("damage", [None, "altered", "truncated", "no checksum"])
def test_an_entry_of_an_earlier_release_is_read_or_trained_anew(tmp_path, damage):
    context = digits(tmp_path)
    first = Autoencoder(context)
    weights = as_an_earlier_release(entry(context), first)
    match damage:
        case "altered":
            flip_a_bit(weights)
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "no checksum":
            (entry(context) / "content.json").write_text("{}")
    reporter = Interrupt(0)
    again = Autoencoder(dataclasses.replace(context, reporter=reporter))
    assert bool(reporter.told) == bool(damage)
    assert again.sha256 == first.sha256
    images = to_unit_range(context.test_images)
    assert torch.equal(again(images).pool, first(images).pool)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_official_features_leave_the_running_statistics_alone(tmp_path):
    context = digits(tmp_path)
    plain, official = Autoencoder(context), OfficialAutoencoder(context)
    images = to_unit_range(context.test_images[:20])
    found = official(images).pool
    assert not torch.equal(found[:10], official(images[:10]).pool)
    assert torch.equal(found, official(images).pool)
    torch.testing.assert_close(plain(images).pool[:10], plain(images[:10]).pool)
    network = plain._network.train()
    with torch.no_grad():
        torch.testing.assert_close(network.encode(images), found)


# The metrics.


@pytest.mark.parametrize("metric", [FAD, OfficialFAD, InfiniteFAD])
def test_values_do_not_depend_on_how_images_arrive(tmp_path, metric):
    context = digits(tmp_path)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(600, 1, 32, 32, generator=generator) * 2 - 1
    one, other = (shown(metric, context, images, size) for size in (600, 37))
    assert one.value == pytest.approx(other.value, rel=1e-6)
    assert one.n == other.n == 600
    assert one.status == "ok"
    assert one.split == "generated"


@pytest.mark.parametrize("size", [128, 37])
def test_official_fad_takes_batches_of_the_protocol_s_size_in_order(size, tmp_path):
    context = digits(tmp_path)
    protocol = context.protocol.model_copy(update={"official_fad_batch_size": size})
    context = replace(context, protocol=protocol)
    images = to_unit_range(context.test_images)[:150]
    extractors = Extractors(context)
    extractor = extractors.get("official_autoencoder")
    latents = torch.cat([extractor(batch).pool for batch in images.split(size)])
    generated = moments(latents)
    test = to_unit_range(context.test_images)
    reference = moments(torch.cat([extractor(batch).pool for batch in test.split(256)]))
    expected = frechet_distance(
        generated.mean, generated.covariance, reference.mean, reference.covariance
    )
    assert shown(OfficialFAD, context, images, 41).value == pytest.approx(expected, rel=1e-9)


def test_too_few_images_are_one_row_with_the_reason(tmp_path):
    context = digits(tmp_path)
    images = to_unit_range(context.test_images)
    for metric, n, reason in (
        (FAD, 1, "1 generated and 360 reference images: the distance needs 2 of each"),
        (OfficialFAD, 1, "1 generated and 360 reference images: the distance needs 2 of each"),
        (InfiniteFAD, 2, "2 generated and 360 reference images: the extrapolation needs "),
        (InfiniteFAD, 515, "516 generated images for 128 features"),
    ):
        found = shown(metric, context, images.repeat(2, 1, 1, 1)[:n])
        assert (found.value, found.status, found.n) == (None, "not_applicable", n)
        assert reason in found.reason
    few = shown(FAD, context, images[:9])
    assert (few.status, few.ci_low, few.ci_high) == ("ok", None, None)
    alone = dataclasses.replace(context, test_images=context.test_images[:1])
    assert shown(FAD, alone, images).status == "not_applicable"


@pytest.mark.parametrize("metric", [FAD, OfficialFAD, InfiniteFAD])
def test_images_that_are_not_finite_give_no_number(tmp_path, metric):
    images = torch.full((600, 1, 32, 32), float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        shown(metric, digits(tmp_path), images)


def test_a_run_has_the_autoencoders_hash_in_its_rows(tiny, tmp_path, monkeypatch):
    names = ["fad", "fad_official", "fad_infinity", "fad_infinity_slope"]
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry.metrics, "names", lambda: names)
    found = bench.run(models="ann_vae", seeds=[0, 1], settings=tiny,
                      out=tmp_path / "run")  # fmt: skip
    found = found[found["model"] == "ann_vae"]
    assert found.groupby("metric").size().to_dict() == dict.fromkeys(names, 2)
    assert found["extractor_sha256"].nunique() == 1
    assert found["extractor_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert found["extractor"].str.contains("trained on 64 images, 1 epochs").all()
    fitted = found["metric"].str.startswith("fad_infinity")
    assert set(found.loc[~fitted, "status"]) == {"ok"}
    assert set(found.loc[fitted, "status"]) == {"not_applicable"}
    fad = found[found["metric"] == "fad"]
    assert (fad["ci_low"] < fad["value"]).all()
    assert (fad["value"] < fad["ci_high"]).all()
    assert len(list((tmp_path / "cache" / "autoencoders").iterdir())) == 1


# Uncertainty.


def test_merged_moments_are_those_of_all_features():
    features = torch.randn(103, 6, generator=torch.Generator().manual_seed(0)) + 1000
    grouped = uncertainty.GroupedMoments()
    for batch in features.split(17):
        grouped.update(batch)
    assert [group.n for group in grouped.groups] == [11, 11, 11, *[10] * 7]
    np.testing.assert_allclose(grouped.groups[3].mean, features[3::10].double().mean(0))
    mean, covariance = uncertainty.merged(grouped.groups)
    np.testing.assert_allclose(mean, features.double().mean(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(features.double().numpy().T), rtol=1e-9)
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        uncertainty.merged([moments(features[:1])])


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=20)
    left_out = [np.delete(values, i).mean() for i in range(20)]
    expected = values.std(ddof=1) / np.sqrt(20)
    assert uncertainty.jackknife_error(left_out) == pytest.approx(expected)


def test_the_interval_holds_the_spread_of_repeated_draws():
    generator = torch.Generator().manual_seed(0)
    mean, covariance = np.zeros(4), np.eye(4)
    values, errors = [], []
    for _ in range(60):
        grouped = uncertainty.GroupedMoments()
        grouped.update(torch.randn(500, 4, generator=generator) + 0.5)
        values.append(grouped.distance(mean, covariance))
        errors.append(grouped.standard_error(mean, covariance))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)
