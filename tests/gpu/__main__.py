"""On a machine with a CUDA GPU: the tests that need one, and a table of speeds.

``python tests/gpu`` ends within eight minutes and prints one table; ``python tests/gpu 300`` within
300 seconds. What no time was left for is said. The naive code is that of ``tests/benchmarks``,
which computes as the papers' public code does.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "benchmarks")]

import naive  # noqa: E402

from bench.datasets.batches import batch_count  # noqa: E402
from bench.profiling.profiler import ACTIVITIES, Profiler  # noqa: E402
from bench.protocol import load_protocol  # noqa: E402
from bench.registry import backends, models  # noqa: E402
from bench.system.devices import fastest_convolutions, lacking_precision, tf32  # noqa: E402

SECONDS = 470
SHARE_OF_TESTS = 0.6
SHAPE, BATCH, IMAGES = (1, 32, 32), 250, 60_000
REPEATS = 10
PRECISIONS = ("float32", "tf32", "bfloat16")
NAIVE = "naive"
MODELS = {
    "ANN VAE": ("ann_vae", ()),
    "ESVAE": ("esvae", ()),
    "FSVAE, prefix": ("fsvae", ("models.fsvae.posterior_statistics=prefix",)),
    "FSVAE, running": ("fsvae", ("models.fsvae.posterior_statistics=running",)),
}
LATENTS = {"esvae": "latent_size=32"}


def tests(limit):
    """Run the tests that need a GPU; gives pytest's last line."""
    where = [TESTS / "gpu", TESTS / "baselines" / "test_fused_cuda.py"]
    # Most of their time is the host's.
    processes = ["--numprocesses", "auto", "--maxprocesses", "8", "--dist", "worksteal"]
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", *processes, *map(str, where)]
    how = {"capture_output": True, "text": True, "cwd": TESTS.parent}
    try:
        done = subprocess.run(command, timeout=limit, **how)
    except subprocess.TimeoutExpired:
        return 1, f"not all tests ended within {limit:.0f} s"
    lines = done.stdout.splitlines()
    if done.returncode:
        print("\n".join(lines[-60:]), file=sys.stderr)
    return done.returncode, lines[-1]


def kinds():
    """Yield what is measured, the quickest and most telling first."""
    for label, (name, _) in MODELS.items():
        spiking = models.load(name).spiking
        for precision in PRECISIONS:
            yield label, "fused" if spiking else "torch", precision
    for label, (name, _) in MODELS.items():
        if models.load(name).spiking:
            for precision in ("float32", "tf32"):
                yield label, NAIVE, precision
            for backend in ("reference", "spikingjelly", "snntorch"):
                yield label, backend, "float32"


def built(label, backend, precision, device):
    """The model, with the same weights each time."""
    name, settings = MODELS[label]
    own = LATENTS.get(name, "latent_size=128")
    protocol = load_protocol("standard", [own, *settings, f"precision={precision}"])
    torch.manual_seed(0)
    spiking = {"torch": None, NAIVE: "reference"}.get(backend, backend)
    layers = backends.load(spiking)() if spiking else None
    return models.load(name)(SHAPE, protocol.resolve(name, "mnist"), layers).to(device)


def rates(label, backend, precision, device):
    """Images per second of each activity, and the peak memory in MiB."""
    model = built(label, backend, precision, device)
    images = torch.rand((BATCH, *SHAPE), device=device) * 2 - 1
    with tf32(precision == "tf32"), fastest_convolutions():
        if backend == NAIVE:
            return naive_rates(model, images)
        profiler = Profiler(model, images, batch_count(IMAGES, BATCH), 0, REPEATS)
        found, peaks = {}, []
        for activity in ACTIVITIES:
            measured = profiler.measure(activity)
            found[activity] = BATCH / median(measured.seconds)
            peaks.append(measured.peak_memory or 0)
    return {**found, "peak MiB": max(peaks) / 2**20}


def naive_rates(model, images):
    """The same of the naive code."""
    torch.cuda.reset_peak_memory_stats()
    with torch.device(images.device):
        twin = {"ESVAE": naive.ESVAE, "FSVAE": naive.FSVAE}[type(model).__name__](model)
        generator = torch.Generator(images.device).manual_seed(0)
        calls = {
            "training": lambda: twin.training_step(images),
            "reconstruction": lambda: twin.reconstruct(images, generator),
            "sampling": lambda: twin.sample(len(images), generator),
        }
        found = {}
        for activity, call in calls.items():
            twin.training = activity == "training"
            with torch.set_grad_enabled(twin.training):
                found[activity] = BATCH / median(timed(call) for _ in range(REPEATS))
    return {**found, "peak MiB": torch.cuda.max_memory_allocated() / 2**20}


def timed(call):
    """Seconds of a call; the median leaves out the first, which prepares."""
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def main(seconds):
    """Print the table; the exit code is that of the tests."""
    if not torch.cuda.is_available():
        sys.exit("no CUDA GPU here")
    end = time.monotonic() + seconds
    device = torch.device("cuda")
    code, told = tests(seconds * SHARE_OF_TESTS)
    rows = []
    for label, backend, precision in kinds():
        row = {"model": label, "backend": backend, "precision": precision}
        if time.monotonic() > end - 20:
            row["note"] = "no time left"
        elif reason := lacking_precision(precision, device):
            row["note"] = reason
        else:
            try:
                row |= rates(label, backend, precision, device)
            except Exception as error:
                row["note"] = f"{type(error).__name__}: {error}"[:100]
            torch.cuda.empty_cache()
        rows.append(row)
    table = pd.DataFrame(rows).round(0)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; tests: {told}")
    print(f"images per second, {BATCH} images of {SHAPE} a batch, T = 16")
    print(table.to_string(index=False, na_rep=""))
    sys.exit(code)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
