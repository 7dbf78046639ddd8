import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from bench.metrics.cost import (
    SamplingGraphReplays,
    SamplingThroughput,
    TrainingGraphReplays,
    TrainingThroughput,
)
from bench.metrics.metric import Batch, ModelFacts, SamplingTime
from bench.metrics.reconstruction import OfficialReconstructionLoss, ReconstructionLoss
from bench.protocol import load_protocol
from bench.recording.training_record import EpochRecord, TrainingRecord
from bench.system.devices import PeakMemoryMeter

FACTS = ModelFacts(0, 0, TrainingRecord((), {}, None), None)


def shown(metric, originals, images, batch_size):
    for start in range(0, len(images), batch_size):
        cut = slice(start, start + batch_size)
        metric.update(Batch("test", images[cut], originals[cut], {}))
    return list(metric.compute(FACTS))


@given(n=st.integers(1, 40), batch_size=st.integers(1, 17), seed=st.integers(0, 99))
def test_reconstruction_loss_counts_every_image_once_however_batched(n, batch_size, seed):
    generator = np.random.default_rng(seed)
    originals, images = generator.uniform(-1, 1, (2, n, 1, 4, 4)).astype(np.float32)
    metric = ReconstructionLoss(load_protocol("smoke"))
    (found,) = shown(metric, torch.tensor(originals), torch.tensor(images), batch_size)
    expected = np.mean((originals.astype(np.float64) - images) ** 2)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert (found.n, found.split) == (n, "test")


@given(
    n=st.integers(1, 40),
    official=st.integers(1, 15),
    drop_last=st.booleans(),
    batch_size=st.integers(1, 17),
)
def test_official_reconstruction_loss_is_the_mean_of_official_batches(
    n, official, drop_last, batch_size
):
    errors = np.arange(1.0, n + 1)
    images = torch.tensor(np.sqrt(errors))[:, None, None, None]
    setting = f"official_test_batching={{size={official}, drop_last={str(drop_last).lower()}}}"
    metric = OfficialReconstructionLoss(load_protocol("smoke", [setting]).resolve("m", "d"))
    (found,) = shown(metric, torch.zeros_like(images), images, batch_size)
    batches = [errors[i : i + official] for i in range(0, n, official)]
    if drop_last:
        batches = [batch for batch in batches if len(batch) == official]
    if not batches:
        assert found.status == "not_applicable"
        return
    assert found.value == pytest.approx(np.mean([batch.mean() for batch in batches]))
    assert found.n == sum(map(len, batches))


def test_throughput_is_images_over_the_median_of_seconds():
    training = TrainingRecord(
        (EpochRecord({}, 100, 50.0), EpochRecord({}, 100, 10.0), EpochRecord({}, 100, 20.0)), {}, 1
    )
    facts = ModelFacts(0, 0, training, SamplingTime(30, (3.0, 1.0, 2.0)))
    (found,) = TrainingThroughput(load_protocol("smoke")).compute(facts)
    assert (found.value, found.n) == (5.0, 300)
    (found,) = SamplingThroughput(load_protocol("smoke")).compute(facts)
    assert (found.value, found.n) == (15.0, 90)


@pytest.mark.parametrize(
    ("replayed", "eager", "value", "reason"),
    [
        (75, None, 0.75, None),
        (0, "it counts in steps", None, "it counts in steps"),
        (0, None, None, "no call came after those that are needed to capture a graph"),
    ],
)
def test_graph_replays_are_a_share_of_the_calls_or_tell_why_there_are_none(
    replayed, eager, value, reason
):
    training = TrainingRecord((), {}, None, steps=100, replayed=replayed, eager=eager)
    sampling = SamplingTime(30, (1.0,) * 100, replayed, eager)
    for metric in (TrainingGraphReplays, SamplingGraphReplays):
        (found,) = metric(load_protocol("smoke")).compute(ModelFacts(0, 0, training, sampling))
        assert (found.value, found.reason) == (value, reason)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the tiny run is on the GPU")
def test_a_run_on_a_cpu_replays_nothing(model_rows):
    names = ["training_graph_replays", "sampling_graph_replays"]
    rows = model_rows[model_rows["metric"].isin(names)]
    assert len(rows) == 2 * model_rows["cell_key"].nunique()
    assert set(rows["status"]) == {"not_applicable"}
    assert set(rows["reason"]) == {"a CPU has no CUDA graphs"}


def test_parameter_count_and_footprint_of_a_run_match_the_weights(tiny_run, model_rows):
    out, _ = tiny_run
    for (key, model), cell in model_rows.groupby(["cell_key", "model"]):
        (path,) = (out / "cells").glob(f"*{key}/weights-last.safetensors")
        weights = load_file(path)
        values = cell.set_index("metric")["value"]
        sizes = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        assert values["footprint"] == sizes
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        learned = sum(t.numel() for name, t in weights.items() if not name.endswith(buffers))
        assert values["parameter_count"] == learned, model


def test_footprint_is_the_same_on_every_backend(tiny_run):
    _, rows = tiny_run
    footprint = rows[rows["metric"] == "footprint"]
    assert footprint.groupby("model")["value"].nunique().eq(1).all()


def test_peak_memory_sees_what_is_freed_again_and_forgets_it_on_reset():
    memory = PeakMemoryMeter(torch.device("cpu"))
    before = memory.bytes()
    if before is None:
        pytest.skip("this system does not let a process reset its peak memory")
    block = torch.ones(64 * 2**20)
    del block
    assert memory.bytes() - before > 200 * 2**20
    memory.reset()
    assert memory.bytes() - before < 100 * 2**20
