"""Every command, and every piece of code, of README and docs is run as it stands there.

The commands of docs/ are full tests: they take a minute and a half, and only a change of a page or
of the command line breaks them.

Datasets are drawn, protocols take seconds, metrics and plots are few (``short.py``); else all is
real. What is marked ``bash`` cannot be run here, and only its options are checked.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import commands
import fork_server
import numpy as np
import pandas as pd
import pytest
import torch
from drawn import idx, md5
from file_server import serving_files
from narrow import narrow_networks
from PIL import Image
from tiny import FEW_METRICS, TINY

import bench
from bench.cli import VERBS
from bench.comparison.reference_update import update_reference
from bench.datasets.torchvision import MNIST
from bench.protocol import Protocol
from bench.store.schema import COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    ROOT / "reports" / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("results/*/*/README.md")),
]
BENCH = "from bench.cli import main; main()"
PIECE = "import sys; exec(sys.argv[1])"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
# Where the repository's files are read, and where they are served as they are.
SERVED = (f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/tree/main/", f"{REPOSITORY}/raw/main/")
# Installing is what CI does before it comes here.
PREPARED = "pip() { test $1 = install; }\n"
# Of the README: a cluster, many cells, and several seeds. All commands of these folders' pages.
LONG = ("cluster run", "--protocol quick", "--seeds 0,1,2")
LONG_FOLDERS = {"docs", "results"}
RAY_ADDRESSES = ("auto", "10.0.0.1:6379")


def blocks(page, *languages):
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w+)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [code for _, language, code in found if language in languages]


def scripts(page):
    """What is typed for one purpose: a block of ``sh``, or the steps of a workflow.

    How a reference was made is one script, since its steps use each other's files.
    """
    # The README's first two are CI's; tests below install, and run a model from a package outside.
    typed = [b for b in blocks(page, "sh") if "-m venv" not in b and "--models mine" not in b]
    if ROOT / "results" in page.parents:
        return ["".join(typed)]
    return typed + ["\n".join(re.findall(r"run: (.*)", flow)) for flow in blocks(page, "yaml")]


def script_parameters():
    for page in PAGES:
        for number, script in enumerate(scripts(page), 1):
            folder = page.relative_to(ROOT).parts[0]
            long = folder in LONG_FOLDERS or any(words in script for words in LONG)
            marks = [pytest.mark.full] if long else []
            yield pytest.param(page, script, id=f"{page.relative_to(ROOT)}-{number}", marks=marks)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Where drawn images are, as MNIST's files."""
    folder = tmp_path_factory.mktemp("served")
    draws, resources = np.random.default_rng(0), []
    for name in MNIST.files:
        count = 256 if name.startswith("train") else 24
        images = draws.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        array = images if "images" in name else np.arange(count, dtype=np.uint8) % 10
        content = gzip.compress(idx(array))
        (folder / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", md5(content)))
    (folder / "resources.json").write_text(json.dumps(resources))
    with serving_files(folder) as address:
        yield address


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run with every metric."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with narrow_networks():
        bench.run("ann_vae,esvae", backends="fused", settings=TINY, out=out)
    return out


def draw_images(here):
    """The images of one's own that the docs name."""
    draws = np.random.default_rng(0)
    counts = {"train": 256, "test": 24}
    for name, shape, highest in (
        ("data/cifar10_subset", (32, 32, 3), 255),
        ("scans", (16, 16), 4095),
        ("other", (16, 16, 3), 255),
    ):
        dtype = np.min_scalar_type(highest)
        images = {
            f"{split}_images": draws.integers(0, highest + 1, (count, *shape), dtype)
            for split, count in counts.items()
        }
        np.savez(here / f"{name}.npz", **images)
    for name in ("generated", "reconstructed", "samples"):
        np.savez(here / f"{name}.npz", arr_0=draws.integers(0, 256, (24, 32, 32, 1), np.uint8))
    (here / "faces").mkdir()
    for number, image in enumerate(np.load(here / "generated.npz")["arr_0"]):
        Image.fromarray(image[..., 0]).save(here / "faces" / f"{number}.png")
    for split, images in np.load(here / "other.npz").items():
        folder = here / "photos" / split.removesuffix("_images")
        folder.mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture(scope="session")
def programs(server, tmp_path_factory):
    """Where ``bench`` and ``piece``, which runs its argument as Python, start without imports."""
    folder = tmp_path_factory.mktemp("programs")
    with fork_server.serving(folder / "socket", "short", BENCH_TESTS_SERVER=server):
        fork_server.write_program(folder / "bench", folder / "socket", BENCH)
        fork_server.write_program(folder / "piece", folder / "socket", PIECE)
        yield folder


@pytest.fixture(scope="session")
def folder_of(finished, tmp_path_factory):
    """The folder of a page: a run and its reference, and what earlier scripts of the page left."""

    @cache
    def folder(page):
        here = tmp_path_factory.mktemp("page")
        for name in ("data", "downloads"):
            (here / name).mkdir()
        draw_images(here)
        for copy in ("runs/smoke", "runs/first", "runs/second", "DIR"):
            shutil.copytree(finished, here / copy)
        (weights,) = (here / "DIR").glob("cells/esvae-*/weights-last.safetensors")
        shutil.copy(weights, here / "official.safetensors")
        update_reference(here / "runs/smoke", here / "results/reference/smoke")
        for protocol in (code for code in blocks(page, "toml") if "time_steps" in code):
            (here / "mine.toml").write_text(protocol)
        return here

    return folder


@pytest.fixture
def shell(page, folder_of, programs, tmp_path, monkeypatch):
    """Runs a script in the folder of its page, with ``bench`` on the path."""
    here = folder_of(page)
    monkeypatch.setenv("BENCH_DATA_ROOT", str(here / "downloads"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), os.environ["PATH"]]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")

    def run(*command):
        ran = subprocess.run(command, cwd=here, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command[-1]}\n{ran.stdout}\n{ran.stderr}"

    return run


@pytest.fixture
def cluster():
    """The address of a Ray cluster with a GPU in name."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1})
    yield made.address
    made.shutdown()


@pytest.mark.parametrize(("page", "script"), list(script_parameters()))
def test_every_command_runs(page, script, shell, request):
    if "--address" in script:
        address = request.getfixturevalue("cluster")
        for named in RAY_ADDRESSES:
            script = script.replace(f"--address {named}", f"--address {address}")
    if not torch.cuda.is_available():
        script = script.replace("--device cuda", "--device cpu")
    shell("bash", "-euo", "pipefail", "-c", PREPARED + script)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent.name != "reports" and blocks(page, "python")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_piece_of_python_runs(page, shell):
    for code in blocks(page, "python"):
        shell("piece", code)


def test_a_model_from_a_package_outside_installs_and_runs(tiny_flags, tmp_path):
    """What the README says of your own model, typed as it stands there."""
    package = tmp_path / "mine"
    package.mkdir()
    (source,) = (code for code in blocks(ROOT / "README.md", "python") if "class Mine" in code)
    (project,) = (code for code in blocks(ROOT / "README.md", "toml") if 'name = "mine"' in code)
    lines = [line for line in (source + project).splitlines() if line]
    assert len(lines) <= 30
    (package / "mine.py").write_text(source)
    (package / "pyproject.toml").write_text(project)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, package], check=True, capture_output=True)
    metrics = f"{FEW_METRICS},sampling_throughput"
    flags = ["--models", "mine", *tiny_flags, "--metrics", metrics, "--out", tmp_path / "run"]
    code, _, err = commands.run("run", *flags, paths=[site])
    assert code == 0, err
    rows = bench.load_results(tmp_path / "run")
    assert set(rows["model"]) == {"fad_autoencoder", "real_images", "pixel_noise", "mine"}
    status = rows[rows["model"] == "mine"].groupby("metric")["status"].first()
    assert status["reconstruction_loss"] == status["sampling_throughput"] == "ok"
    assert status["firing_rate"] == "not_applicable"


def test_the_plugins_of_the_docs_plug_in(plugins, tmp_path):
    asked = {"settings": TINY, "out": tmp_path / "run"}
    before = bench.run("ann_vae", metrics="reconstruction_loss", **asked)
    assert "mean_absolute_error" not in set(before["metric"])
    plugins(
        "plugin_docs",
        "\n\n".join(blocks(ROOT / "docs" / "plugins.md", "python")),
        metrics={
            "mean_absolute_error": "plugin_docs:MeanAbsoluteError",
            "thumbnail_distance": "plugin_docs:ThumbnailDistance",
        },
        extractors={"thumbnail": "plugin_docs:Thumbnail"},
        datasets={"stripes": "plugin_docs:Stripes"},
        trackers={"history": "plugin_docs:History"},
    )
    metrics = "reconstruction_loss,mean_absolute_error,thumbnail_distance"
    datasets = ["digits", "stripes"]
    rows = bench.run("ann_vae", datasets, metrics=metrics, log="history", **asked)
    added = rows[rows["metric"] == "mean_absolute_error"].set_index("dataset")
    assert set(added.index) == {"digits", "stripes"}
    assert set(added["status"]) == {"ok"}
    assert list(added["n"]) == [24, 24]
    distances = rows[(rows["metric"] == "thumbnail_distance") & (rows["model"] == "ann_vae")]
    assert list(distances["status"]) == ["ok", "ok"]
    assert distances["extractor"].str.startswith("thumbnail").all()
    known = rows[rows["dataset"] == "digits"].merge(before, on=["cell_key", "metric"])
    assert known["run_id_x"].equals(known["run_id_y"])
    (history,) = tmp_path.glob("run/history/ann_vae-*stripes*/history.csv")
    logged = pd.read_csv(history, names=["seen", "name", "value"]).set_index("name")
    assert list(logged.loc["losses/loss", "seen"]) == [16, 32, 48, 64]
    (value,) = added.loc[["stripes"], "value"]
    assert logged.loc["metrics/mean_absolute_error/test", "value"] == value


@pytest.mark.full
def test_the_table_of_the_readme_is_that_of_the_reference(bench_cli, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (?:ann|fsvae|esvae).*\|$", readme, re.MULTILINE)
    page = tmp_path / "quick.md"
    bench_cli("report", ROOT / "results/reference/quick", "--format", "md", "--out", page)
    summary = page.read_text(encoding="utf-8").replace("\\_", "_").splitlines()
    assert len(table) == 9
    assert [line for line in table if line not in summary] == []


def test_the_figures_of_the_reading_are_what_its_code_prints(programs):
    page = ROOT / "reports" / "README.md"
    code = "\n".join(blocks(page, "python"))
    ran = subprocess.run([programs / "piece", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "".join(blocks(page, "text"))


def test_the_first_two_commands_are_install_and_run_then_test():
    install, test = (block for block in blocks(ROOT / "README.md", "sh") if "-m venv" in block)
    assert install.strip().endswith("bench run")
    assert test.strip().endswith("tox")
    assert test.split("&&")[-1].strip() in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_in_the_text_exists(page, bench_cli):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for verb, rest in re.findall(
        rf"bench (reference update|cluster run|data fetch|{'|'.join(VERBS)})\b([^\n`|#]*)", text
    ):
        _, help_text, _ = bench_cli(*verb.split(), "--help")
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in help_text, (verb, option)


def test_every_extra_that_is_named_exists():
    known = set(PROJECT["optional-dependencies"])
    for page in PAGES:
        named = re.findall(r"(?:spikegen-bench|\.)\[(\w+)\]", page.read_text(encoding="utf-8"))
        assert set(named) <= known


def links(page):
    """Every link of a page and, if it leads to a file of this repository, the file's path."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        served = [ROOT / target.removeprefix(base) for base in SERVED if target.startswith(base)]
        if served:
            yield target, served[0]
        else:
            yield target, None if target.startswith("https://") else page.parent / target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    assert [target for target, path in links(page) if path and not path.exists()] == []


def test_the_links_of_the_readme_lead_somewhere_from_everywhere():
    """The index of packages shows the README too, without the files of the repository."""
    found = dict(links(ROOT / "README.md"))
    assert [target for target in found if not target.startswith("https://")] == []
    assert {"docs/usage.md", "docs/images/samples.png"} <= {
        str(path.relative_to(ROOT)) for path in found.values() if path
    }


def test_the_project_is_called_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'repository-code: "{REPOSITORY}"' in citation
    for author in PROJECT["authors"]:
        assert author["name"] in citation
        assert author["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())


def test_every_column_and_every_setting_is_described():
    rows, protocols = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("rows", "protocols"))
    assert [name for name in COLUMNS if f"`{name}`" not in rows] == []
    assert [name for name in Protocol.model_fields if f"`{name}`" not in protocols] == []


def test_the_api_has_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    described = re.findall(r"^::: bench\.(?:\w+\.)*(\w+)$", text, re.MULTILINE)
    assert set(bench.__all__) <= set(described)


def test_the_docs_name_every_metric_and_noise():
    from bench.metrics.noise import INPUT_NOISE, LATENT_NOISE
    from bench.registry import metrics

    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in [*metrics.names(), *INPUT_NOISE, *LATENT_NOISE]:
        assert f"`{name}`" in text


def test_the_docs_name_every_weights_file():
    from bench.registry import extractors

    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    files = {file for name in extractors.names() for file in extractors.load(name).weight_files}
    assert set(re.findall(r"`--weights (\w+)=", text)) == {file.name for file in files}
    variables = {file.variable for file in files if file.variable}
    assert set(re.findall(r"BENCH_\w+_WEIGHTS", text)) == variables
