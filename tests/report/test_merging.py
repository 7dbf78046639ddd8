"""Several runs as one: ``bench merge`` and ``bench report A B``."""

import pytest
from page_runs import row, write_run

import bench
from bench.store.merging import merge_runs
from bench.store.schema import RUN_FILE


@pytest.fixture
def two(tmp_path):
    """Two runs of one model each, and a path for the merged run."""
    first = write_run(tmp_path / "first", [row("vae"), row("vae", metric="ssim", value=0.75)])
    return first, write_run(tmp_path / "second", [row("gan", value=0.25)]), tmp_path / "both"


def test_a_merged_run_has_the_rows_and_files_of_both(bench_cli, two):
    *runs, out = two
    code, said, err = bench_cli("merge", *runs, "--out", out)
    assert (code, err) == (0, "")
    assert "2 cells of 2 runs" in said
    rows = bench.load_results(out)
    assert rows.groupby("model")["metric"].agg(set).to_dict() == {
        "gan": {"reconstruction_loss"},
        "vae": {"reconstruction_loss", "ssim"},
    }
    images = [len(list(run.glob("cells/*/images/*.png"))) for run in (*runs, out)]
    assert images[2] == images[0] + images[1] > 1
    assert bench_cli("report", out)[0] == 0
    assert bench_cli("doctor", out)[0] == 0


def test_a_report_of_several_runs_compares_their_models(bench_cli, two, tmp_path):
    first, second, _ = two
    code, said, err = bench_cli(
        "report", first, second, "--out", tmp_path / "page.md", "--format", "md"
    )
    assert (code, err) == (0, "")
    assert str(tmp_path / "page.md") in said
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("# Report of first and second")
    assert "| vae torch | 1 | 200 | 0.5 | 0.75 |" in text
    assert "| gan torch | 1 | 200 | 0.25 |" in text
    assert sorted(path.name for path in first.iterdir()) == sorted(p.name for p in second.iterdir())


def test_a_report_of_several_runs_needs_a_file(bench_cli, two):
    first, second, _ = two
    code, _, err = bench_cli("report", first, second)
    assert code == 2
    assert "needs --out FILE" in err


def test_runs_that_disagree_about_a_cell_are_refused_by_name(bench_cli, tmp_path):
    numbers = {"a": 0.5, "b": 0.5000001}
    runs = [write_run(tmp_path / name, [row(value=value)]) for name, value in numbers.items()]
    code, _, err = bench_cli("merge", *runs, "--out", tmp_path / "both")
    assert (code, err.count("\n")) == (2, 1)
    assert "vae/torch/digits seed 0 in reconstruction_loss" in err
    assert not (tmp_path / "both").exists()


def test_a_cell_of_both_runs_is_taken_from_the_one_with_more_values(bench_cli, tmp_path):
    def speed(value):
        return row(metric="training_throughput", value=value, unit="images/s", split="train")

    first = write_run(tmp_path / "a", [row(), speed(10.0)])
    second = write_run(tmp_path / "b", [row(), speed(20.0), row(metric="ssim", value=0.75)])
    assert bench_cli("merge", first, second, "--out", tmp_path / "both")[0] == 0
    rows = bench.load_results(tmp_path / "both").set_index("metric")["value"]
    assert rows.to_dict() == {
        "reconstruction_loss": 0.5,
        "training_throughput": 20.0,
        "ssim": 0.75,
    }


def test_references_can_be_merged(bench_cli, two):
    first, second, out = two
    reference = first.parent / "reference"
    assert bench_cli("reference", "update", first, reference)[0] == 0
    assert bench_cli("merge", reference, second, "--out", out)[0] == 0
    assert set(bench.load_results(out)["model"]) == {"vae", "gan"}


@pytest.mark.parametrize("content", ["folder", "file"])
def test_only_a_new_directory_is_written(bench_cli, two, content):
    first, second, out = two
    if content == "folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    else:
        out.write_text("mine")
    code, _, err = bench_cli("merge", first, second, "--out", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "choose a new directory" in err


def test_a_run_of_a_newer_release_is_refused(bench_cli, two):
    first, second, out = two
    text = (second / RUN_FILE).read_text()
    (second / RUN_FILE).write_text(text.replace('"schema_version": 2', '"schema_version": 99'))
    code, _, err = bench_cli("merge", first, second, "--out", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "use the release that wrote it" in err


def test_a_merged_run_goes_on_where_its_parts_stopped(tmp_path):
    settings = ["train_images=32", "test_images=16", "epochs=1", "generated_images=16"]
    given = {"models": "ann_vae", "settings": settings, "metrics": "reconstruction_loss"}
    for seed in (0, 1):
        bench.run(**given, seeds=[seed], out=tmp_path / f"s{seed}", reporter=None)
    merge_runs([tmp_path / "s0", tmp_path / "s1"], tmp_path / "both")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("both/cells/*/rows.parquet")}
    rows = bench.run(**given, seeds=[0, 1], out=tmp_path / "both", reporter=None)
    assert sorted(rows["seed"].unique()) == [0, 1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(tmp_path.glob("both/cells/*/rows.parquet"))) == len(before)
