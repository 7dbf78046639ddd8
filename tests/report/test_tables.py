import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.protocol import load_protocol
from bench.registry import backends, metrics, models
from bench.report.papers.paper_table import COLUMNS, FORMATS, paper_table, render
from bench.report.papers.published import MAPPINGS, UNITS, published, published_tables
from bench.store.run_directory import CellFolder, RunDirectory, frame, load_results

SIZES = {
    "esvae-table-1": 30,
    "fsvae-cost": 4,
    "fsvae-table-1": 32,
    "sdm-table-1": 38,
    "sgad-table": 8,
    "spiking-diffusion-abstract": 5,
    "taid-table-1": 3,
    "taid-table-2": 3,
}
TABLES = list(SIZES)
# Protocols that follow a table, with the models that they train.
FOLLOWED = {
    "fsvae_paper": {"fsvae", "ann_vae"},
    "esvae_paper": {"esvae"},
    "taid_paper": {"taid"},
    "sgad_paper": {"swgan", "sgad"},
    "spiking_diffusion_paper": {"spiking_diffusion"},
    "sddpm_paper": {"sddpm"},
}
NASTY = r"""<script>x</script> & 50% $a_b^c~ {}#|`*"' \end{tabular} [é]中 --x"""
ROOT = Path(__file__).parents[2]


def row(metric, value=None, seed=0, backend="reference", **values):
    """A row of FSVAE on MNIST by its paper's protocol, or of another; ok if it has a value."""
    model, dataset = values.get("model", "fsvae"), values.get("dataset", "mnist")
    paper = values.get("protocol", "fsvae_paper")
    known = load_protocol(paper if paper in FOLLOWED else "fsvae_paper")
    return {
        "schema_version": 2,
        "cell_key": f"{backend}{seed}{values.get('protocol')}",
        "model": "fsvae",
        "model_version": "1",
        "backend": backend,
        "dataset": "mnist",
        "dataset_variant": "complete",
        "dataset_fingerprint": "f",
        "protocol": "fsvae_paper",
        "protocol_hash": known.resolve(model, dataset).hash,
        "seed": seed,
        "epoch_selection": "best_test_loss",
        "split": "generated",
        "metric": metric,
        "metric_version": "1",
        "value": value,
        "n": 5000,
        "status": "failed" if value is None else "ok",
        "device": "cpu",
        **values,
    }


def fids(**values):
    return [
        row("fid_official", fid, seed, **values) for seed, fid in enumerate([96.0, 98.0, 100.0])
    ]


def fid_rows(rows, model="fsvae"):
    table = paper_table("fsvae-table-1", frame(rows))
    picked = table[(table["dataset"] == "mnist") & (table["model"] == model)]
    return picked[picked["metric"] == "fid"]


@pytest.fixture
def run_directory(tmp_path):
    """Write rows as a run directory."""

    def write(rows):
        directory = RunDirectory(tmp_path / "a run")
        directory.begin({"run_id": "x"})
        CellFolder(directory.path / "cells" / "one").write_rows(frame(rows))
        directory.collect()
        return directory.path

    return write


# What was published


def test_every_published_number_is_there_and_says_where_it_is_from():
    assert published_tables() == TABLES
    assert {name: len(published(name)) for name in TABLES} == SIZES
    for name in TABLES:
        table = published(name)
        assert (table["source"] != "").all()
        assert not table.duplicated(["dataset", "model", "metric"]).any()
        assert set(table["metric"]) <= set(MAPPINGS)


@pytest.mark.skipif(
    not (ROOT.parent / "shared/facts/published.csv").exists(), reason="no list of facts here"
)
def test_published_numbers_are_those_of_the_list_of_facts():
    facts = pd.read_csv(ROOT.parent / "shared/facts/published.csv", keep_default_na=False)
    for name in facts["table"].unique():
        keys = ["dataset", "model", "metric", "value", "source", "note"]
        expected = facts.loc[facts["table"] == name, keys].reset_index(drop=True)
        pd.testing.assert_frame_equal(published(name)[keys], expected, check_dtype=False)


def test_published_numbers_are_answered_by_metrics_models_and_protocols_that_exist():
    for answer in MAPPINGS.values():
        assert {*answer.metrics, answer.done_right} - {None} <= set(metrics.names())
    for name in TABLES:
        table = published(name)
        for protocol, ours in table[table["protocol"] != ""].groupby("protocol"):
            assert set(ours["model"]) <= FOLLOWED[protocol]
            assert set(ours["model"]) <= set(models.names())
            assert set(ours["model"]) <= set(load_protocol(protocol).paper_models)


def test_numbers_that_no_protocol_follows_are_of_other_systems_or_of_networks_that_are_not_public():
    for name in TABLES:
        table = published(name)
        rest = table[table["protocol"] == ""]
        ours = rest[rest["model"].isin(set().union(*FOLLOWED.values()))]
        assert set(zip(ours["dataset"], ours["model"], strict=True)) <= {
            ("cifar10", "swgan"),
            ("cifar10", "sgad"),
            ("cifar10", "spiking_diffusion"),
            ("kmnist", "spiking_diffusion"),
            ("emnist_letters", "spiking_diffusion"),
            ("lsun_bedroom", "sddpm"),
        }
        reasons = "variant ours_32|the dataset is not in the suite"
        assert ours["deviation"].str.contains(reasons).all()


def test_a_number_that_another_paper_printed_names_both_papers():
    for name in ("esvae-table-1", "sgad-table"):
        table = published(name)
        quoted = table[table["model"].isin({"swgan", "sgad", "taid"})]
        assert quoted["source"].eq("arXiv:2310.14839 Table I").all()
        assert quoted["note"].str.match("quoted there.* from arXiv:2(305.10246|406.03046)").all()
    table = published("sdm-table-1").set_index("model")
    assert table.loc["hybrid_gan", "note"].str.contains("cited there to arXiv:2111.01750").all()


def test_the_numbers_of_sgad_s_table_are_the_numbers_that_esvae_s_paper_quotes():
    keys = ["dataset", "model", "metric", "printed", "images", "protocol", "deviation", "source"]
    quoted = published("esvae-table-1").query("model in ['swgan', 'sgad']")
    pd.testing.assert_frame_equal(
        published("sgad-table")[keys], quoted[keys].reset_index(drop=True)
    )


def test_printed_digits_are_kept():
    table = published("esvae-table-1").set_index(["dataset", "model", "metric"])
    assert table.loc[("cifar10", "swgan", "fid"), "printed"] == "178.40"
    assert table.loc[("cifar10", "esvae", "fid"), "value"] == 127.0


# The frame


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_run_gets_a_command_for_every_number_of_our_models(name):
    table = paper_table(name, frame([]), "my run")
    assert dict(table.dtypes.astype(str)) == COLUMNS
    assert len(table) == len(published(name))
    ours = table["status"] == "missing"
    assert set(table.loc[ours, "model"]) <= set().union(*FOLLOWED.values())
    assert table.loc[ours, "command"].notna().all()
    assert set(table.loc[~ours, "status"]) <= {"published_only"}
    assert table.loc[~ours, "command"].isna().all()
    assert table.loc[~ours, "reason"].str.contains("no protocol that follows").all()


def test_ours_has_mean_spread_and_difference_and_what_is_done_right_beside_it():
    rows = [*fids(), *(row("fid", 90.0 + seed, seed) for seed in range(3))]
    (found,) = fid_rows(rows).to_dict("records")
    assert found["status"] == "ok"
    assert (found["published"], found["answered_by"]) == (97.06, "fid_official")
    assert (found["mean"], found["standard_deviation"], found["seeds"]) == (98.0, 2.0, 3)
    # Student's t for two degrees of freedom
    assert found["ci_high"] - 98 == pytest.approx(4.302653 * 2 / 3**0.5)
    assert found["difference"] == pytest.approx(0.94)
    assert found["relative_difference"] == pytest.approx(0.94 / 97.06)
    assert (found["done_right"], found["done_right_mean"]) == ("fid", 91.0)
    assert found["same_protocol"]
    assert pd.isna(found["differs"])
    assert pd.isna(found["command"])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5))
def test_the_difference_is_that_of_the_mean_over_seeds(values):
    rows = [row("fid_official", value, seed) for seed, value in enumerate(values)]
    (found,) = fid_rows(rows).to_dict("records")
    assert found["seeds"] == len(values)
    assert found["mean"] == pytest.approx(sum(values) / len(values))
    assert found["difference"] == pytest.approx(found["mean"] - 97.06)
    assert pd.isna(found["ci_low"]) == (len(values) == 1)


def test_each_backend_and_each_protocol_has_its_own_row():
    rows = [*fids(), *fids(backend="snntorch"), *fids(protocol="mine", protocol_hash="0" * 64)]
    found = fid_rows(rows)
    assert list(found["backend"]) == ["reference", "snntorch", "reference"]
    assert list(found["same_protocol"]) == [True, True, False]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"protocol": "quick", "protocol_hash": "0" * 64}, "protocol quick, not fsvae_paper"),
        ({"protocol_hash": "0" * 64}, "fsvae_paper with hash 000000000000, not"),
        ({"dataset_variant": "subset"}, "a subset of the dataset"),
        ({"dataset_variant": "substitute"}, "in the dataset's place"),
        ({"n": 100}, "100 images, not 5000"),
        ({"n": None}, "an unknown number of images, not 5000"),
        ({"epoch_selection": "last"}, "evaluated at the epoch last, not best_test_loss"),
    ],
)
def test_what_differs_from_the_paper_is_said(values, words):
    (found,) = fid_rows(fids(**values)).to_dict("records")
    assert words in found["differs"]
    assert not found["same_protocol"]
    assert found["difference"] == pytest.approx(0.94)


def test_seeds_scored_on_other_numbers_of_images_are_not_averaged():
    found = fid_rows([row("fid_official", 90.0, 0), row("fid_official", 99.0, 1, n=10)])
    assert list(found["images"]) == [5000, 10]
    assert list(found["mean"]) == [90.0, 99.0]


def test_another_autoencoder_than_the_papers_is_said():
    values = {"n": 5120, "extractor": "autoencoder (published, mnist_64.pth), batch statistics"}
    rows = [row("fad_official", 30.0, 0, **values)]
    table = paper_table("fsvae-table-1", frame(rows)).set_index(["dataset", "model", "metric"])
    assert table.loc[("mnist", "fsvae", "fad"), "same_protocol"]
    rows[0]["extractor"] = "autoencoder (trained on 60000 images), batch statistics"
    table = paper_table("fsvae-table-1", frame(rows)).set_index(["dataset", "model", "metric"])
    assert "not the paper's extractor" in table.loc[("mnist", "fsvae", "fad"), "differs"]


def test_a_known_deviation_of_our_protocol_is_said():
    (found,) = (
        paper_table("fsvae-table-1", frame(fids(dataset="celeba")))
        .query("dataset == 'celeba' and model == 'fsvae' and metric == 'fid'")
        .to_dict("records")
    )
    assert "validation split" in found["differs"]


def test_a_failed_cell_has_its_reason_and_its_backend_is_run_again():
    (found,) = fid_rows([row("fid_official", reason="it broke", backend="snntorch")]).to_dict(
        "records"
    )
    assert (found["status"], found["reason"]) == ("failed", "it broke")
    assert "--backends snntorch" in found["command"]
    assert pd.isna(found["seeds"])


def test_a_dataset_that_could_not_be_had_is_skipped_with_its_reason():
    rows = [row("fid_official", status="skipped", reason="no network", dataset_variant=None)]
    (found,) = fid_rows(rows).to_dict("records")
    assert (found["status"], found["reason"]) == ("skipped", "no network")
    assert "not available" in found["differs"]
    assert found["command"]


def test_a_failed_seed_is_named_beside_those_that_did_not():
    (found,) = fid_rows([*fids(), row("fid_official", seed=7, reason="it broke")]).to_dict(
        "records"
    )
    assert found["seeds"] == 3
    assert found["reason"] == "seed 7 failed: it broke"


def test_what_does_not_apply_under_another_protocol_says_so_and_what_to_run():
    other = {"protocol": "quick", "protocol_hash": "0" * 64}
    rows = [
        row("fid_official", status="not_applicable", reason="too few images", **other),
        row("fid", 80.0, **other),
    ]
    (found,) = fid_rows(rows).to_dict("records")
    assert (found["status"], found["reason"]) == ("not_applicable", "too few images")
    assert found["done_right_mean"] == 80.0
    assert not found["same_protocol"]
    assert found["differs"] == "protocol quick, not fsvae_paper"
    assert "--protocol fsvae_paper" in found["command"]


def test_only_what_is_done_right_is_there():
    (found,) = fid_rows([row("fid", 80.0)]).to_dict("records")
    assert (found["status"], found["done_right_mean"]) == ("missing", 80.0)
    assert found["command"]


def test_rows_of_layers_noise_and_unknown_metrics_are_no_answer():
    rows = [
        row("fid_official", 1.0, layer="encoder"),
        row("fid_official", 1.0, noise_kind="input_gaussian", noise_level=0.1),
        row("nobody_knows", 1.0),
    ]
    assert list(fid_rows(rows)["status"]) == ["missing"]


def test_additions_are_macs_and_acs_of_a_reconstruction_and_are_not_compared():
    macs, acs = "synaptic_operations_effective_macs", "synaptic_operations_effective_acs"
    rows = [
        *(row(macs, 10.0 + seed, seed, split="test") for seed in range(2)),
        *(row(acs, 100.0, seed, split="test") for seed in range(2)),
        *(row(macs, 1e6, seed) for seed in range(2)),
        *(row(macs, 1e6, seed, split="test", layer="encoder") for seed in range(2)),
    ]
    table = paper_table("fsvae-cost", frame(rows)).set_index(["model", "metric"])
    additions, products = (table.loc[("fsvae", name)] for name in ("additions", "multiplications"))
    assert (additions["mean"], additions["seeds"]) == (110.5, 2)
    assert additions["answered_by"] == f"{macs} + {acs}"
    assert products["mean"] == 10.5
    assert pd.isna(additions["difference"])
    assert not additions["same_protocol"]
    assert "stride squared" in additions["differs"]


def test_additions_need_both_parts():
    rows = [
        row("synaptic_operations_effective_macs", 10.0, split="test"),
        row("synaptic_operations_effective_acs", reason="it broke"),
    ]
    table = paper_table("fsvae-cost", frame(rows)).set_index(["model", "metric"])
    assert table.loc[("fsvae", "additions"), "reason"] == "it broke"
    assert table.loc[("fsvae", "multiplications"), "mean"] == 10.0


def test_a_plugged_in_model_next_to_a_number_that_no_protocol_follows():
    rows = frame([row("fid_official", 99.0, model="hybrid_gan")])
    table = paper_table("sdm-table-1", rows).set_index(["dataset", "model", "metric"])
    found = table.loc[("mnist", "hybrid_gan", "fid")]
    assert found["mean"] == 99.0
    assert "the suite has no protocol that follows this number" in found["differs"]


@pytest.mark.parametrize(
    ("name", "model", "dataset", "protocol", "fid", "same", "words"),
    [
        ("sgad-table", "swgan", "mnist", "sgad_paper", 100.29, True, None),
        ("sgad-table", "sgad", "fashion_mnist", "sgad_paper", 165.42, False, "are not public"),
        ("sgad-table", "sgad", "cifar10", "quick", 181.5, False, "variant ours_32"),
        (
            "spiking-diffusion-abstract",
            "spiking_diffusion",
            "mnist",
            "spiking_diffusion_paper",
            37.5,
            False,
            "chooses the temperature by the test images",
        ),
        ("taid-table-1", "taid", "cifar10", "taid_paper", 171.1, False, "released generation"),
        ("taid-table-2", "taid", "celeba", "taid_paper", 99.54, False, "released generation"),
        ("esvae-table-1", "taid", "celeba", "taid_paper", 99.54, False, "released generation"),
    ],
)
def test_the_other_systems_have_their_numbers_next_to_ours(
    name, model, dataset, protocol, fid, same, words
):
    values = {"model": model, "dataset": dataset, "protocol": protocol}
    if protocol in FOLLOWED:
        values["epoch_selection"] = load_protocol(protocol).epoch_selection
    table = paper_table(name, frame([row("fid_official", fid + 1, **values)]))
    (found,) = table.query("mean.notna()").to_dict("records")
    assert (found["model"], found["dataset"], found["published"]) == (model, dataset, fid)
    assert found["difference"] == pytest.approx(1)
    assert found["same_protocol"] == same
    assert (words or "") in str(found["differs"])


def test_a_number_of_the_tensorflow_inception_stands_next_to_the_fid_without_clean_fid_s_resize():
    values = {"model": "sddpm", "dataset": "cifar10", "protocol": "sddpm_paper"}
    rows = [row("fid", 21.0, **values), row("fid_official", 99.0, **values)]
    rows.append(row("inception_score", 7.0, **values))
    table = paper_table("sdm-table-1", frame(rows)).query("mean.notna()").set_index("metric")
    assert table["answered_by"].to_dict() == {
        "fid_tf": "fid",
        "inception_score_tf": "inception_score",
    }
    assert table.loc["fid_tf", "difference"] == pytest.approx(21 - 19.73)
    assert table["done_right"].isna().all()
    assert not table["same_protocol"].any()
    assert table["differs"].str.contains("the paper names 128 images per GPU").all()


# Parameters, printed in multiples of 2^20


def parameters(model, dataset, count, **values):
    rows = [row("parameter_count", count, model=model, dataset=dataset, split=None, **values)]
    table = paper_table("sdm-table-1", frame(rows))
    return table[table["mean"].notna()]


@pytest.mark.parametrize(
    ("model", "backend", "shape", "dataset", "printed"),
    [
        ("fsvae", "reference", (3, 32, 32), "cifar10", "3.87 Mi"),
        ("fsvae", "reference", (3, 64, 64), "celeba", "6.37 Mi"),
        ("ann_vae", None, (3, 32, 32), "cifar10", "1.13 Mi"),
        ("ann_vae", None, (3, 64, 64), "celeba", "3.76 Mi"),
    ],
)
def test_the_networks_have_as_many_parameters_as_printed(model, backend, shape, dataset, printed):
    protocol = load_protocol("fsvae_paper").resolve(model, dataset)
    network = models.load(model)(shape, protocol, backend and backends.load(backend)())
    count = sum(parameter.numel() for parameter in network.parameters())
    (found,) = parameters(model, dataset, float(count)).to_dict("records")
    assert (found["printed"], found["answered_by"]) == (printed, "parameter_count")
    assert found["published"] == float(printed.removesuffix(" Mi")) * 2**20
    assert found["difference"] == pytest.approx(count - found["published"])
    # Two decimals were printed.
    assert abs(found["difference"]) <= 0.005 * 2**20
    assert found["same_protocol"]


def test_parameters_are_shown_in_the_unit_that_was_printed():
    rows = parameters("fsvae", "cifar10", 4_054_755.0)
    (line,) = re.findall(r"^\| cifar10.*", render(rows, "md"), re.MULTILINE)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[4:9] == ["3.87 Mi", "reference", "1", "3.867 Mi", "-0.0031 Mi"]
    spread = rows.assign(ci_low=rows["mean"] - 2**19, ci_high=rows["mean"] + 2**19)
    assert "3.867±0.500 Mi" in render(spread, "md")


def test_every_unit_is_explained_where_it_stands():
    for name in TABLES:
        table = published(name)
        units = table["printed"].str.partition(" ")[2]
        assert set(units) <= set(UNITS)
        notes = table.loc[units == "Mi", "note"]
        assert notes.str.contains("Mi (2^20)", regex=False).all()


# The text


@pytest.mark.parametrize("name", TABLES)
def test_the_real_run_is_shown_in_every_format(bench_cli, tiny_run, name):
    for form in FORMATS:
        code, out, err = bench_cli("table", name, tiny_run[0], "--format", form)
        assert (code, err) == (0, "")
        assert "bench run" in out


def test_a_command_from_the_table_is_one_that_bench_run_takes(bench_cli, run_directory, tmp_path):
    path = run_directory([])
    _, out, _ = bench_cli("table", "fsvae-table-1", path, "--format", "csv")
    commands = {line["command"] for line in csv.DictReader(io.StringIO(out))}
    assert len(commands) == 8
    for command in commands:
        words = shlex.split(command)
        assert words[:2] == ["bench", "run"]
        assert words[-1] == str(path)
        code, plan, err = bench_cli(*words[1:], "--dry-run", "--data-root", tmp_path)
        assert (code, err) == (0, "")
        assert words[3] in plan


@pytest.fixture
def full(run_directory):
    """A run with something of everything in it, under names that hold markup."""
    other = {"protocol": NASTY, "protocol_hash": "0" * 64}
    return run_directory(
        [
            *fids(),
            *(row("fid", 1234.5 + 100 * seed, seed) for seed in range(3)),
            *fids(backend="spikingjelly", model="ann_vae"),
            *fids(dataset="cifar10", **other),
            row("reconstruction_loss_official", 0.0312, n=10000, split="test"),
            row("reconstruction_loss_official", 0.0316, 1, n=10000, split="test"),
            row("inception_score_official", reason=NASTY),
        ]
    )


@pytest.mark.parametrize("columns", [80, 200])
def test_the_terminal_shows_it_without_breaking_numbers(full, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = render(paper_table("fsvae-table-1", load_results(full), full)).splitlines()
    commands = [line for line in lines if line.strip().startswith("bench run")]
    assert all(len(line) <= columns for line in lines if line not in commands)
    assert all(shlex.split(command)[-1] == str(full) for command in commands)
    start = lines.index(" fsvae", lines.index("mnist"))
    reconstruction, score, fid, _ = (line.split() for line in lines[start + 1 : start + 5])
    assert reconstruction == [
        "recon.loss",
        "0.031",
        "reference",
        "2",
        "0.0314±0.0025",
        "+1.3%",
        "yes",
    ]
    assert fid == ["FID", "97.06", "reference", "3", "98.00±4.97", "1334", "+1.0%", "yes"]
    assert "failed" in score


def test_csv_is_the_frame(bench_cli, full):
    _, out, _ = bench_cli("table", "fsvae-table-1", full, "--format", "csv")
    found = pd.read_csv(io.StringIO(out))
    assert list(found.columns) == list(COLUMNS)
    assert (
        found.set_index(["dataset", "model", "metric"]).loc[("mnist", "fsvae", "fid"), "mean"] == 98
    )


def test_markdown_has_as_many_cells_in_every_line_and_names_are_escaped(bench_cli, full):
    _, out, _ = bench_cli("table", "fsvae-table-1", full, "--format", "md")
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<script>" not in out
    assert "&lt;script&gt;" in out
    assert re.search(r"^1\. ", out, re.MULTILINE)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.opened, self.text, self.stack = set(), "", []

    def handle_starttag(self, tag, attrs):
        self.opened.add(tag)
        if tag != "br":
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_a_fragment_with_a_caption_and_names_are_escaped(bench_cli, full):
    _, out, _ = bench_cli("table", "fsvae-table-1", full, "--format", "html")
    parser = Tags()
    parser.feed(out)
    assert parser.stack == []
    assert {"figure", "table", "caption", "th", "td", "ol", "code"} <= parser.opened
    assert not {"script", "html", "body", "style"} & parser.opened
    assert "<script>x</script> & 50%" in parser.text


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
@pytest.mark.parametrize("name", TABLES)
def test_latex_compiles_without_another_package_than_booktabs(bench_cli, full, tmp_path, name):
    file = tmp_path / "table.tex"
    code, _, _ = bench_cli("table", name, full, "--format", "latex", "--out", file)
    assert code == 0
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        "\\input{table}\n\\end{document}\n"
    )
    latex = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(latex, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 5000
    assert b"Missing character" not in (tmp_path / "paper.log").read_bytes()


def test_what_the_docs_show_is_there(bench_cli, run_directory):
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in [*TABLES, *COLUMNS, *FORMATS])
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0] for line in "".join(blocks).splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("bench table")]
    assert len(commands) >= 3
    path = run_directory([])
    for words in commands:
        words = [{"DIR": path, "table.tex": path / "table.tex"}.get(word, word) for word in words]
        assert bench_cli(*words[1:])[0] == 0


# Bad input


def test_an_unknown_table_suggests_near_ones(bench_cli, run_directory):
    code, _, err = bench_cli("table", "fsvae-tabel-1", run_directory([]))
    assert code == 2
    assert "Unknown table 'fsvae-tabel-1'. Did you mean: fsvae-table-1" in err


def test_an_unknown_format_names_those_there_are(bench_cli, run_directory):
    code, _, err = bench_cli("table", "fsvae-cost", run_directory([]), "--format", "latx")
    assert code == 2
    assert "Did you mean: latex?" in err
    assert all(form in err for form in FORMATS)


def test_a_folder_that_is_no_run_is_one_line(bench_cli, tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        code, _, err = bench_cli("table", "fsvae-cost", place)
        assert code == 2
        assert "is not a run directory" in err
        assert err.count("\n") == 1


def test_an_output_that_cannot_be_written_is_one_line(bench_cli, run_directory):
    path = run_directory([])
    code, _, err = bench_cli("table", "fsvae-cost", path, "--out", path)
    assert code == 2
    assert "cannot be written" in err
    assert err.count("\n") == 1


# As installed


def test_tables_import_no_torch():
    code = "import bench.report.papers.paper_table, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_wheel_carries_the_published_numbers(tmp_path, run_directory):
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = [name for name in archive.namelist() if "published/" in name]
    assert sorted(names) == [f"bench/report/papers/published/{name}.csv" for name in TABLES]
    code = (
        "import bench.report.papers.published as p, json;"
        "print(json.dumps([p.__file__, [len(p.published(n)) for n in p.published_tables()]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    file, sizes = json.loads(done.stdout)
    assert Path(file).is_relative_to(site)
    assert sizes == list(SIZES.values())
