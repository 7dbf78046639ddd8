import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bench
from bench.metrics.reconstruction import ReconstructionLoss
from bench.registry import metrics
from bench.store import schema
from bench.store.aggregation import whole_models
from bench.store.declarations import declared, headlines
from bench.store.run_directory import SCHEMA, CellFolder, frame

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "results" / "reference" / "smoke"
DOCS = (ROOT / "docs" / "rows.md").read_text(encoding="utf-8")


def without_headlines(run):
    """Make a copy of the smoke reference as an earlier release wrote it."""
    shutil.copytree(SMOKE, run)
    content = json.loads((run / "run.json").read_text())
    for command in content["commands"]:
        for facts in command["metrics"].values():
            facts.pop("headline", None)
    (run / "run.json").write_text(json.dumps(content))
    return run


# Columns


def test_the_docs_have_a_row_for_every_column_and_for_nothing_else():
    lines = [line for line in DOCS.splitlines() if line.startswith("| `")]
    columns = [name for line in lines for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(columns) == sorted(schema.COLUMNS)


def test_the_docs_name_the_columns_that_comparable_rows_agree_in():
    (named,) = re.findall(r"comparable if these columns agree: (.*?)\.\n", DOCS, re.DOTALL)
    assert tuple(re.findall(r"`(\w+)`", named)) == schema.COMPARABLE_BY
    (named,) = re.findall(r"one model must also agree in these columns: (.*?)\. ", DOCS)
    assert tuple(re.findall(r"`(\w+)`", named)) == schema.COMPARABLE_WITHIN_MODEL


@pytest.mark.parametrize(
    "group",
    ["CELL", "CELL_VARIATION", "PARTS", "PAIRED_BY", "COMPARABLE_BY", "OBSERVATION", "HASHES",
     "VOLATILE", "COMPARABLE_WITHIN_MODEL", "GATE_COMPARABLE_BY"],
)  # fmt: skip
def test_groups_hold_columns_once(group):
    names = list(getattr(schema, group))
    assert set(names) <= set(schema.COLUMNS)
    assert len(set(names)) == len(names)


def test_what_rows_are_compared_and_averaged_by_differs_only_where_it_is_said():
    both = {*schema.COMPARABLE_BY, *schema.COMPARABLE_WITHIN_MODEL}
    assert {*schema.GATE_COMPARABLE_BY} < both
    assert both - {*schema.GATE_COMPARABLE_BY} == {"epoch_selection", "protocol", "model_version"}
    assert {*schema.COMPARABLE_BY} - {*schema.OBSERVATION} == {"n", "extractor_sha256"}
    assert {*schema.PAIRED_BY} < {*schema.OBSERVATION}


def test_the_schema_is_quick_to_import():
    code = (
        "import sys, bench.store.schema\n"
        "assert not {'torch', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# Kinds


def test_rows_without_a_kind_get_one(tmp_path):
    old = pa.schema([field for field in SCHEMA if field.name != "kind"])
    rows = [{"model": name, "status": "ok"} for name in ("esvae", "fad_autoencoder", "mine")]
    pq.write_table(pa.Table.from_pylist(rows, schema=old), tmp_path / "rows.parquet")
    found = CellFolder(tmp_path).rows()
    assert list(found["kind"]) == ["model", "extractor", "model"]
    assert list(found.columns) == list(schema.COLUMNS)


def test_a_kind_that_was_written_is_kept():
    found = frame([{"model": "mine", "kind": "extractor"}, {"model": None}])
    assert list(found["kind"]) == ["extractor", "model"]


def test_only_models_are_whole_models():
    rows = frame([{"model": "esvae"}, {"model": "mine", "kind": "extractor"}])
    assert list(whole_models(rows)["model"]) == ["esvae"]


# Headlines


def test_the_main_metrics_of_each_view_in_their_order():
    """The order that users know; it changes only on purpose."""
    shown = {view: list(headlines(SMOKE, metrics.names(), view)) for view in schema.VIEWS}
    assert shown == {
        "summary": ["reconstruction_loss", "ssim", "fid", "fad", "firing_rate", "energy",
                    "training_throughput"],
        "report": ["reconstruction_loss", "psnr", "ssim", "fid", "inception_score", "fad",
                   "firing_rate", "energy", "parameter_count", "training_throughput"],
        "metric_by_model": ["reconstruction_loss", "ssim", "fid", "inception_score",
                            "efficientnet_frechet_distance", "fd_dinov2", "fad", "firing_rate",
                            "energy"],
        "quality_against_energy": ["reconstruction_loss", "fid", "fad"],
        "quality_against_training_images": ["reconstruction_loss", "fid",
                                            "efficientnet_frechet_distance", "fd_dinov2", "fad"],
    }  # fmt: skip


def test_an_earlier_run_has_the_headlines_of_the_installed_metrics(tmp_path):
    run = without_headlines(tmp_path / "run")
    names = bench.load_results(run)["metric"]
    assert not any(each.headline for each in declared(run).values())
    for view in schema.VIEWS:
        assert headlines(run, names, view) == headlines(SMOKE, names, view)


def test_a_run_that_declares_its_headlines_imports_no_metric():
    code = (
        "import sys, pathlib, bench\n"
        "from bench.store.declarations import headlines\n"
        f"path = pathlib.Path({str(SMOKE)!r})\n"
        "assert headlines(path, bench.load_results(path)['metric'], 'report')\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_variant_of_a_headline_is_none():
    class Variant(ReconstructionLoss):
        name = "variant"

    assert ReconstructionLoss.headline is not None
    assert Variant.headline is None


def test_a_metric_that_is_not_installed_is_no_headline(tmp_path):
    run = without_headlines(tmp_path / "run")
    assert headlines(run, ["of_nobody"], "report") == {}


@pytest.mark.usefixtures("one_plot")
def test_a_metric_from_outside_declares_its_own_headline(bench_cli, tmp_path):
    """The report takes it from the run; the metric need not be installed."""
    run = tmp_path / "run"
    shutil.copytree(SMOKE, run)
    content = json.loads((run / "run.json").read_text())
    headline = {"rank": 1, "label": "dead", "split": "test", "views": ["report"], "short": ""}
    content["commands"][-1]["metrics"]["dead_neurons"]["headline"] = headline
    (run / "run.json").write_text(json.dumps(content))
    code, _, _ = bench_cli("report", run, "--format", "md")
    assert code == 0
    assert (
        "| trained on, images | dead | reconstruction loss ↓ |" in (run / "report.md").read_text()
    )


def test_a_headline_that_cannot_be_read_is_one_line(bench_cli, tmp_path):
    run = without_headlines(tmp_path / "run")
    content = json.loads((run / "run.json").read_text())
    content["commands"][-1]["metrics"]["fad"]["headline"] = {"rank": 1}
    (run / "run.json").write_text(json.dumps(content))
    code, _, err = bench_cli("report", run)
    assert (code, err.count("\n")) == (2, 1)
    assert "run.json says of its metrics cannot be read" in err
