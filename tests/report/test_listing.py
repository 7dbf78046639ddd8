import csv
import io
import json

import pytest
from click.testing import CliRunner
from page_runs import ODD, SCRIPT, failed, row, write_run

from bench.cli import cli


@pytest.fixture
def path(tmp_path):
    rows = [
        row("vae", 0, "fad", 3.0, split="generated"),
        row("vae", 1, "fad", 20.0, split="generated"),
        row("gan", 0, "fad", 1.0, split="generated"),
        row("vae", 0, "ssim", 0.25),
        row("vae", 0, "firing_rate", 0.1),
        row("vae", 0, "firing_rate", 0.2, layer="encoder.conv1"),
        row("vae", 0, "firing_rate", 0.3, layer="encoder.conv1", time_step=2),
        failed("RuntimeError: no luck", model="gan", seed=1, metric="fad"),
    ]
    return write_run(tmp_path / "run", rows)


@pytest.fixture
def listed(bench_cli, path):
    """The values that a selection lists, in its order."""

    def values(*options):
        code, out, err = bench_cli("results", path, "--format", "csv", *options)
        assert code == 0, err
        return [line["value"] for line in csv.DictReader(io.StringIO(out))]

    return values


def test_everything_is_listed_and_counted(bench_cli, path):
    code, out, _ = bench_cli("results", path)
    assert code == 0
    assert "8 of 8 rows." in out
    assert "failed (1)" in out
    assert "(1) RuntimeError: no luck" in out


@pytest.mark.parametrize(
    ("conditions", "values"),
    [
        (["metric=fad"], ["3.0", "20.0", "1.0", ""]),
        (["metric=fad,ssim", "model=vae"], ["3.0", "20.0", "0.25"]),
        (["metric=f*", "layer=", "seed=0"], ["3.0", "1.0", "0.1"]),
        (["layer=,encoder.conv1", "time_step=2"], ["0.3"]),
        (["seed=1", "status=ok"], ["20.0"]),
        (["value=0.25"], ["0.25"]),
        (["higher_is_better=false", "metric=ssim"], ["0.25"]),
        (["model=gan", "metric=ssim"], []),
        (["status=skipped"], []),
    ],
)
def test_where_keeps_rows_that_meet_every_condition(listed, path, conditions, values):
    options = [part for condition in conditions for part in ("--where", condition)]
    assert sorted(listed(*options)) == sorted(values)


def test_sort_is_by_number_and_leaves_missing_ones_last(listed):
    where = ("--where", "metric=fad")
    assert listed(*where, "--sort", "value") == ["1.0", "3.0", "20.0", ""]
    assert listed(*where, "--sort", "-value") == ["20.0", "3.0", "1.0", ""]


def test_nothing_found_is_said(bench_cli, path):
    code, _, err = bench_cli("results", path, "--where", "seed=9")
    assert code == 0
    assert "None of the 8 rows has seed=9." in err


def test_a_run_without_rows_is_said(bench_cli, tmp_path):
    code, _, err = bench_cli("results", write_run(tmp_path / "empty", []))
    assert code == 0
    assert "has no rows yet" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "metirc=fad"], "Did you mean: metric"),
        (["--where", "metric=fda"], "Did you mean: fad"),
        (["--where", "seed=one"], "seed is a number"),
        (["--where", "fad"], "COLUMN=VALUE"),
        (["--where", "higher_is_better=yes"], "Available: false, true"),
        (["--sort", "vlaue"], "Did you mean: value"),
        (["--columns", "model,metrik"], "Did you mean: metric"),
    ],
)
def test_mistakes_are_one_line_with_the_way_out(bench_cli, path, options, said):
    code, out, err = bench_cli("results", path, *options)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_columns_are_those_asked_for(bench_cli, path):
    options = ("--columns", "metric,device", "--where", "metric=ssim", "--format", "json")
    _, out, _ = bench_cli("results", path, *options)
    assert json.loads(out) == [{"metric": "ssim", "device": "cpu"}]
    _, out, _ = bench_cli("results", path, "--columns", "all", "--format", "json")
    assert set(json.loads(out)[0]) > {"protocol_hash", "git_commit"}


def test_csv_and_json_are_empty_tables_where_nothing_is_found(bench_cli, path):
    _, out, _ = bench_cli("results", path, "--where", "seed=9", "--format", "json")
    assert json.loads(out) == []
    _, out, _ = bench_cli("results", path, "--where", "seed=9", "--format", "csv")
    assert out.startswith("model,backend,dataset,seed,metric,split,value,n")
    assert out.count("\n") == 1


def test_names_with_markup_are_shown_as_they_are(bench_cli, tmp_path):
    rows = [row("[red]vae[/red]"), row(SCRIPT), row(ODD)]
    path = write_run(tmp_path / "run", rows)
    _, out, _ = bench_cli("results", path)
    for name in ("[red]vae[/red]", SCRIPT, ODD):
        assert name in out
    _, out, _ = bench_cli("results", path, "--format", "md")
    assert r"| \$x\_1\$ \& \| \* \_ |" in out


def test_results_of_a_real_run_fit_80_columns(tiny_run):
    arguments = ["results", str(tiny_run[0]), "--where", "metric=fad,ssim,energy"]
    out = CliRunner().invoke(cli, arguments, env={"COLUMNS": "80"}, catch_exceptions=False).output
    assert "generated" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_run_directory_is_required(bench_cli):
    code, _, err = bench_cli("results")
    assert (code, err) == (2, "Error: Missing argument 'DIR'.\n")
