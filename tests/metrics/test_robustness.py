import functools

import numpy as np
import pytest
import torch
from contexts import cell_context
from torch import nn

import bench
from bench.datasets.batches import to_unit_range
from bench.evaluation.passes import Passes
from bench.metrics.metric import Batch, ModelFacts
from bench.metrics.noise import (
    INPUT_NOISE,
    LATENT_NOISE,
    LATENT_SHUFFLE,
    NO_NOISE,
    NoiseStream,
    flip,
    gaussian,
    salt_and_pepper,
    shuffle,
)
from bench.metrics.robustness import NoiseRobustness, NoiseRobustnessToNoiseFree
from bench.model import GenerativeModel
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord

FACTS = ModelFacts(0, 0, TrainingRecord((), {}, None), None)
DRAWS = NoiseStream(3, "test", 0)
KINDS = [NO_NOISE, *LATENT_NOISE, LATENT_SHUFFLE, *INPUT_NOISE]


def spikes(time_steps=16, n=20, size=50, rate=0.3):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(time_steps, n, size, generator=generator) < rate).float()


def grey_and_colour():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(30, channels, 16, 16, generator=generator) * 2 - 1 for channels in (1, 3)]


@pytest.mark.parametrize("level", [0.001, 0.05, 0.3, 1.0])
def test_flip_is_xor_with_bernoulli(level):
    latents = spikes(n=100)
    flips = flip(torch.zeros_like(latents), level, DRAWS)
    assert set(flips.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(flip(latents, level, DRAWS).bool(), latents.bool() ^ flips.bool())
    assert flips.mean().item() == pytest.approx(level, abs=4 * (level / latents.numel()) ** 0.5)


def test_flip_reflects_a_latent_without_time():
    latents = torch.randn(400, 50, generator=torch.Generator().manual_seed(0))
    flipped = flip(latents, 0.2, DRAWS)
    assert torch.equal(flipped.abs(), latents.abs())
    assert (flipped != latents).double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(flip(latents, 1.0, DRAWS), -latents)


@pytest.mark.parametrize("noise", [*LATENT_NOISE.values(), *INPUT_NOISE.values()])
def test_what_a_level_corrupts_a_higher_one_corrupts_too(noise):
    values = spikes() if noise in LATENT_NOISE.values() else torch.zeros(20, 3, 16, 16)
    low, high = noise(values, 0.1, DRAWS), noise(values, 0.3, DRAWS)
    changed = low != values
    assert changed.any()
    assert (high != values)[changed].all()
    assert torch.equal((high - values)[changed].sign(), (low - values)[changed].sign())


@pytest.mark.parametrize("noise", [*LATENT_NOISE.values(), *INPUT_NOISE.values()])
def test_an_images_noise_does_not_depend_on_its_batch(noise):
    latent = noise in LATENT_NOISE.values()
    values, axis = (spikes(n=9), 1) if latent else (torch.zeros(9, 3, 16, 16), 0)
    whole = noise(values, 0.3, NoiseStream(0, "kind", 0))
    parts = [
        noise(part, 0.3, NoiseStream(0, "kind", first))
        for first, part in zip((0, 4, 8), values.split(4, axis), strict=True)
    ]
    assert torch.equal(torch.cat(parts, axis), whole)


def test_noise_differs_by_seed_kind_and_image():
    latents = torch.zeros(16, 2, 50)
    found = [
        flip(latents, 0.3, draws)
        for draws in (
            NoiseStream(0, "a", 0),
            NoiseStream(1, "a", 0),
            NoiseStream(0, "b", 0),
            NoiseStream(0, "a", 10),
        )
    ]
    found.append(found[0].flip(1))
    for i, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[i + 1 :])


def test_shuffle_permutes_the_time_steps_of_each_image():
    steps = torch.arange(16.0)[:, None, None].expand(16, 20, 5)
    shuffled = shuffle(steps, DRAWS)
    assert torch.equal(shuffled[:, :, :1].expand_as(shuffled), shuffled)
    assert torch.equal(shuffled.sort(0).values, steps)
    orders = {tuple(column.tolist()) for column in shuffled[:, :, 0].T}
    assert len(orders) == 20
    latents = spikes()
    torch.testing.assert_close(shuffle(latents, DRAWS).mean(0), latents.mean(0))


def test_every_time_step_is_as_likely_to_come_first():
    steps = torch.arange(4.0)[:, None, None].expand(4, 4000, 1)
    counts = shuffle(steps, DRAWS)[0, :, 0].long().bincount()
    assert counts.tolist() == pytest.approx([1000] * 4, abs=120)


@pytest.mark.parametrize("images", grey_and_colour())
@pytest.mark.parametrize("level", [0.02, 0.3, 1.0])
def test_salt_and_pepper_whitens_and_blackens_pixels_in_all_channels(images, level):
    images = images * 0.9
    noisy = salt_and_pepper(images, level, DRAWS)
    changed = noisy != images
    assert torch.equal(changed, changed[:, :1].expand_as(changed))
    assert set(noisy[changed].unique().tolist()) == {-1.0, 1.0}
    for extreme in (-1, 1):
        share = (noisy == extreme)[:, 0].double().mean().item()
        assert share == pytest.approx(level / 2, abs=0.02)


@pytest.mark.parametrize("images", grey_and_colour())
def test_gaussian_noise_has_its_standard_deviation_and_is_clipped(images):
    noise = gaussian(torch.zeros_like(images), 0.1, DRAWS)
    assert noise.mean().item() == pytest.approx(0, abs=0.005)
    assert noise.std().item() == pytest.approx(0.1, rel=0.03)
    assert torch.equal(gaussian(images, 0.1, DRAWS), (images + noise).clamp(-1, 1))
    strong = gaussian(images, 1.0, DRAWS)
    assert (strong.min().item(), strong.max().item()) == (-1, 1)


class Recorder(GenerativeModel):
    """A model without time that keeps the images it is shown, and draws from every generator."""

    version = "1"
    capabilities = frozenset({"reconstruct"})

    def __init__(self, protocol):
        super().__init__((1, 32, 32), protocol, None)
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, images, step):
        return {"loss": 0.0}

    def reconstruct(self, images, generator):
        self.seen += list(images)
        draws = torch.rand(images.shape[:1], generator=generator) + torch.rand(1)
        return (images * 0.5 * draws[:, None, None, None]).clamp(-1, 1)


class Flat(Recorder):
    """It encodes too, one value a pixel."""

    capabilities = frozenset({"reconstruct", "encode", "decode"})

    def encode(self, images, generator):
        return images.flatten(1) + 0.1 * torch.randn(len(images), 1024, generator=generator)

    def decode(self, latents):
        return (latents.reshape(-1, 1, 32, 32) + 0.1 * torch.randn(1)).clamp(-1, 1)

    def reconstruct(self, images, generator):
        self.seen += list(images)
        return self.decode(self.encode(images, generator))


class Spiking(Flat):
    """Its latent is a spike train whose first steps weigh more."""

    spiking = True

    def encode(self, images, generator):
        chance = torch.rand((4, len(images), 1024), generator=generator)
        return (chance < (images.flatten(1) + 1) / 2).float()

    def decode(self, latents):
        weights = torch.tensor([0.8, 0.6, 0.4, 0.2])[: len(latents), None, None]
        return ((weights * latents).sum(0).reshape(-1, 1, 32, 32) - 1).clamp(-1, 1)


def digits(n=10):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 1, 32, 32), generator=generator, dtype=torch.uint8)


def passes(model_class, *changes, seed=0):
    levels = () if any("noise_levels" in change for change in changes) else ("noise_levels=[0.3]",)
    protocol = load_protocol("smoke", [*levels, *changes]).resolve("m", "d")
    return Passes(model_class(protocol), cell_context(protocol, digits(), seed=seed))


@functools.cache
def observations(metric_class, model_class):
    metric = metric_class(load_protocol("smoke"))
    for batch in passes(model_class, "noise_levels=[0.1, 0.3]").noisy_reconstructions():
        metric.update(batch)
    return list(metric.compute(FACTS))


def test_two_models_in_whatever_batches_get_the_same_noise_on_their_input(monkeypatch):
    seen = {}
    for model_class, size in ((Recorder, 10), (Flat, 3), (Spiking, 4)):
        monkeypatch.setattr("bench.evaluation.passes.NOISE_BATCH", size)
        run = passes(model_class, "noise_levels=[0.1, 0.3]")
        list(run.noisy_reconstructions())
        # By image and corruption: the batches decide in which order the model sees them.
        seen[model_class] = sorted(tuple(image.flatten().tolist()) for image in run.model.seen)
    assert len(seen[Recorder]) == 10 * (1 + 2 * 2)
    assert seen[Recorder] == seen[Flat] == seen[Spiking]


def test_another_seed_gives_other_noise():
    seen = []
    for seed in (0, 1):
        run = passes(Recorder, seed=seed)
        list(run.noisy_reconstructions())
        seen.append(torch.stack(run.model.seen))
    clean = slice(0, 10)
    assert torch.equal(seen[0][clean], seen[1][clean])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("model_class", [Recorder, Flat, Spiking])
def test_a_models_own_draws_are_the_same_with_and_without_noise(model_class, monkeypatch):
    keep = {kind: lambda values, level, draws: values for kind in (*LATENT_NOISE, *INPUT_NOISE)}
    for name in ("LATENT_NOISE", "INPUT_NOISE"):
        kinds = LATENT_NOISE if name == "LATENT_NOISE" else INPUT_NOISE
        monkeypatch.setattr(f"bench.evaluation.passes.{name}", {kind: keep[kind] for kind in kinds})
    monkeypatch.setattr("bench.evaluation.passes.NOISE_BATCH", 4)
    run = passes(model_class)
    for batch in run.noisy_reconstructions():
        if batch.noise_kind != LATENT_SHUFFLE:
            assert torch.equal(batch.images, batch.noise_free), batch.noise_kind


def test_batches_of_images_have_draws_of_their_own(monkeypatch):
    monkeypatch.setattr("bench.evaluation.passes.NOISE_BATCH", 5)
    batches = passes(Recorder).noisy_reconstructions()
    first, second = (b.images / b.originals for b in batches if b.noise_kind == NO_NOISE)
    assert not torch.isclose(first.mean((1, 2, 3)), second.mean((1, 2, 3))).any()


def test_the_pass_is_the_same_when_run_again(monkeypatch):
    monkeypatch.setattr("bench.evaluation.passes.NOISE_BATCH", 4)
    run = passes(Spiking)
    for one, other in zip(run.noisy_reconstructions(), run.noisy_reconstructions(), strict=True):
        assert torch.equal(one.images, other.images)


def test_a_level_given_twice_counts_once():
    run = passes(Recorder, "noise_levels=[0.3, 0.1, 0.3]")
    levels = [b.noise_level for b in run.noisy_reconstructions() if b.noise_kind != NO_NOISE]
    assert levels == [0.1, 0.3] * 2


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("model_class", [Recorder, Spiking])
def test_the_noise_images_are_drawn_from_all_the_same_for_every_model_and_seed(model_class, seed):
    run = passes(model_class, "noise_images=7", seed=seed)
    batches = list(run.noisy_reconstructions())
    clean = torch.cat([b.originals for b in batches if b.noise_kind == NO_NOISE])
    drawn = np.sort(np.random.RandomState(0).permutation(10)[:7])
    assert torch.equal(clean, to_unit_range(digits()[drawn]))


@pytest.mark.parametrize("model_class", [Recorder, Flat, Spiking])
def test_the_curves_do_not_depend_on_the_evaluation_batch_size(model_class):
    shown = [
        list(passes(model_class, f"evaluation_batch_size={size}").noisy_reconstructions())
        for size in (3, 10)
    ]
    for one, other in zip(*shown, strict=True):
        assert (one.noise_kind, one.noise_level) == (other.noise_kind, other.noise_level)
        assert torch.equal(one.images, other.images)


class Misshapen(Flat):
    """Decodes one image for all."""

    def decode(self, latents):
        return super().decode(latents)[:1]

    def reconstruct(self, images, generator):
        return images


class Graded(Spiking):
    """Its spikes are halves."""

    def encode(self, images, generator):
        return super().encode(images, generator) / 2


class Transposed(Spiking):
    """Its time comes second."""

    def encode(self, images, generator):
        return super().encode(images, generator).transpose(0, 1)

    def reconstruct(self, images, generator):
        return images


@pytest.mark.parametrize(
    ("model_class", "message"),
    [
        (Misshapen, r"decode gave images of shape \(1, 1, 32, 32\)"),
        (Graded, "encode gave latents that are not spikes"),
        (Transposed, r"encode gave latents of shape \(10, 4, 1024\), expected \(T, 10, D\)"),
    ],
)
def test_a_model_that_breaks_its_contract_is_told_so(model_class, message):
    with pytest.raises(ValueError, match=message):
        list(passes(model_class).noisy_reconstructions())


def batch(kind, level, images, originals, noise_free):
    values = (torch.full((4, 1, 2, 2), value) for value in (images, originals, noise_free))
    images, originals, noise_free = values
    return Batch(
        "test", images, originals, {}, noise_kind=kind, noise_level=level, noise_free=noise_free
    )


def test_both_references_of_a_worked_example():
    batches = [
        batch("none", 0.0, 0.5, 0.0, 0.5),
        batch("input_gaussian", 0.1, 0.3, 0.0, 0.5),
        batch("input_gaussian", 0.1, 0.1, 0.0, 0.5),
    ]
    found = {}
    for metric_class in (NoiseRobustness, NoiseRobustnessToNoiseFree):
        metric = metric_class(load_protocol("smoke"))
        for shown in batches:
            metric.update(shown)
        ok = [row for row in metric.compute(FACTS) if row.status == "ok"]
        found[metric.name] = {(row.noise_kind, row.noise_level): row for row in ok}
    originals, noise_free = found["noise_robustness"], found["noise_robustness_to_noise_free"]
    assert originals["none", 0.0].value == pytest.approx(0.25)
    assert originals["input_gaussian", 0.1].value == pytest.approx((0.09 + 0.01) / 2)
    assert originals["input_gaussian", 0.1].n == 8
    assert set(noise_free) == {("input_gaussian", 0.1)}
    assert noise_free["input_gaussian", 0.1].value == pytest.approx((0.04 + 0.16) / 2)


@pytest.mark.parametrize(
    ("model_class", "reasons"),
    [
        (
            Recorder,
            dict.fromkeys(["latent_flip", "latent_shuffle"], "the model cannot encode and decode"),
        ),
        (Flat, {"latent_shuffle": "the model's latent has no time steps"}),
        (Spiking, {}),
    ],
)
@pytest.mark.parametrize("metric_class", [NoiseRobustness, NoiseRobustnessToNoiseFree])
def test_kinds_that_a_model_cannot_have_are_rows_with_a_reason(metric_class, model_class, reasons):
    rows = observations(metric_class, model_class)
    found = {row.noise_kind: row.reason for row in rows if row.status == "not_applicable"}
    assert found == reasons
    curves = [
        row
        for row in rows
        if row.status == "ok" and row.noise_kind not in (NO_NOISE, LATENT_SHUFFLE)
    ]
    kinds = [kind for kind in KINDS if kind not in (NO_NOISE, LATENT_SHUFFLE, *reasons)]
    expected = [(kind, level) for kind in kinds for level in (0.1, 0.3)]
    assert [(row.noise_kind, row.noise_level) for row in curves] == expected
    for row in rows:
        assert row.split == "test"
        assert row.status != "ok" or (row.n == 10 and row.ci_low <= row.value <= row.ci_high)


def test_the_error_grows_with_the_level_and_shuffling_shows():
    rows = observations(NoiseRobustnessToNoiseFree, Spiking)
    values = {(row.noise_kind, row.noise_level): row.value for row in rows}
    for kind in (*LATENT_NOISE, *INPUT_NOISE):
        assert 0 < values[kind, 0.1] < values[kind, 0.3]
    assert values[LATENT_SHUFFLE, None] > 0


def test_a_run_has_the_curves_of_every_vae(vae_rows):
    rows = vae_rows
    curves = rows[rows["metric"].str.startswith("noise_robustness")]
    for (model, metric, _), curve in curves.groupby(["model", "metric", "cell_key"]):
        kinds = [kind for kind in KINDS if kind != NO_NOISE or metric == "noise_robustness"]
        assert set(curve["noise_kind"]) == set(kinds)
        missing = curve[curve["status"] != "ok"]
        assert list(missing["noise_kind"]) == (["latent_shuffle"] if model == "ann_vae" else [])
        assert set(missing["status"]) <= {"not_applicable"}


def test_the_same_command_gives_the_same_rows(tiny_run, tiny, tmp_path):
    _, first = tiny_run
    names = "noise_robustness|psnr|ssim|time_step|posterior_prior|linear_probe"
    patterns = [f"*{name}*" for name in names.split("|")]
    asked = {"settings": tiny, "metrics": patterns, "out": tmp_path / "again"}
    again = bench.run("ann_vae,esvae,fsvae", **asked)
    columns = ["model", "metric", "value", "ci_low", "ci_high", "n", "noise_kind", "noise_level"]
    first = first[first["cell_key"].isin(again["cell_key"])]
    tables = [
        rows[rows["metric"].str.contains(names)][columns]
        .astype(object)
        .sort_values(columns[:2], kind="stable", ignore_index=True)
        for rows in (first, again)
    ]
    assert len(tables[0]) > 60
    assert tables[0].equals(tables[1])
