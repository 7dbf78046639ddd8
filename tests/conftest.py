import gc
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from file_server import serving_files
from filelock import FileLock
from hypothesis import settings
from tiny import TINY, models_of_smoke

import bench
from bench import cli, registry
from bench.protocol import load_protocol

# How long an example takes depends on what else the machine does.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")

# A file system in memory, on Linux, and the bytes that the temporary files of all tests fit into.
MEMORY = Path("/dev/shm")
ROOM = 2 * 2**30


def pytest_configure():
    """Put temporary files in memory if it has room: on a disk, runs wait for each file's flush."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM and runs_programs(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def runs_programs(folder):
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


@pytest.fixture(autouse=True, scope="session")
def nothing_from_elsewhere(tmp_path_factory):
    """A cache of the session's own, no weights from the network, and a machine with one CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib's limit on the number of CPUs
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("BENCH_INCEPTION_WEIGHTS", "no/such/file")
        patch.setenv("BENCH_INCEPTION_TORCHVISION_WEIGHTS", "no/such/file")
        yield


@pytest.fixture(autouse=True)
def existing_objects_are_spared():
    """Searching a million imported objects for garbage would take a twelfth of the tests' time."""
    gc.freeze()


@pytest.fixture
def tiny():
    return list(TINY)


@pytest.fixture
def tiny_flags():
    return [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture
def bench_cli(monkeypatch, capsys):
    """Run the command line in this process; gives (exit code, standard output, standard error).

    What it sets in the environment, as ``--offline`` does, ends with it.
    """

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        capsys.readouterr()  # What was printed before.
        with mock.patch.dict(os.environ, COLUMNS="400"), pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Install packages on the import path: a module's source and its entry points by group."""

    def install(module, source, **entry_points):
        site = tmp_path / "site"
        metadata = site / f"{module}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = []
        for group, names in entry_points.items():
            lines += [f"[bench.{group}]", *(f"{name} = {value}" for name, value in names.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(site)
        forget_entry_points()

    yield install
    forget_entry_points()
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


def forget_entry_points():
    for known in registry.registries().values():
        known.__dict__.pop("_entry_points", None)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A tiny run of the models of ``smoke``, of one on every backend; do not change it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    out = folder / "tiny_run"
    with FileLock(folder / "tiny_run.lock"):
        if not (out / "results.parquet").is_file():
            bench.run("esvae", backends="all", settings=TINY, out=out)
            bench.run(models_of_smoke(), settings=TINY, out=out)
    return out, bench.load_results(out)


@pytest.fixture(scope="session")
def model_rows(tiny_run):
    """The rows of the tiny run's models, without the cell of FAD's autoencoder."""
    _, rows = tiny_run
    return rows[rows["kind"] == "model"]


@pytest.fixture(scope="session")
def vae_rows(model_rows):
    """The rows of the models that encode, decode and reconstruct."""
    able = {name: registry.models.load(name).capabilities for name in model_rows["model"].unique()}
    vaes = [name for name, has in able.items() if {"encode", "decode", "reconstruct"} <= has]
    return model_rows[model_rows["model"].isin(vaes)]


@pytest.fixture(scope="session")
def real_data():
    """The folder of real MNIST files beside the checkout, where there is one."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip("no real data in ../shared/data")
    return folder


@pytest.fixture
def served(tmp_path):
    """A folder, and the address under which a local server serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving_files(folder) as address:
        yield folder, address


@pytest.fixture
def double_precision():
    """Everything in float64: rounding then cannot turn a spike into none."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def resolve():
    def resolve(model, *settings):
        return load_protocol("smoke", settings).resolve(model, "digits")

    return resolve


@pytest.fixture
def one_plot(monkeypatch):
    """Reports draw one plot, for tests that read their text."""
    monkeypatch.setattr(registry.plots, "names", lambda: ["metric_by_model"])


@pytest.fixture(scope="session")
def build(resolve):
    """Builds a model by its name with equally seeded weights."""

    def build(name, image_shape, *settings, backend="reference", seed=0):
        model_class = registry.models.load(name)
        spiking = registry.backends.load(backend)() if model_class.spiking else None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return model_class(image_shape, resolve(name, *settings), spiking)

    return build


@pytest.fixture(scope="session")
def perturb():
    """Moves batch norm away from its initial values, to where spiking layers fire."""

    def perturb(model, seed=1):
        generator = torch.Generator().manual_seed(seed)

        def uniform(like, low, high):
            return low + (high - low) * torch.rand(like.shape, generator=generator)

        for module in model.modules():
            if hasattr(module, "running_mean"):
                with torch.no_grad():
                    module.weight.copy_(uniform(module.weight, 0.7, 2.0))
                    module.bias.copy_(uniform(module.bias, -0.1, 0.2))
                module.running_mean.copy_(uniform(module.running_mean, -0.15, 0.15))
                module.running_var.copy_(uniform(module.running_var, 0.05, 0.2))
        return model

    return perturb


@pytest.fixture(scope="session")
def random_images():
    def random_images(n, image_shape, seed=2):
        generator = torch.Generator().manual_seed(seed)
        return torch.rand((n, *image_shape), generator=generator) * 2 - 1

    return random_images


@pytest.fixture(scope="session")
def seeded():
    def seeded(seed=11):
        return torch.Generator().manual_seed(seed)

    return seeded
