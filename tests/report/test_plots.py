import csv
import gc
import json
import shutil
import weakref
from itertools import combinations, pairwise, product
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.transforms import Bbox
from PIL import Image

from bench.report.plots.drawing import draw_plot, load_plots
from bench.report.plots.plot import NotDrawnError
from bench.report.plots.plot_data import measured_rows, shorten_protocols
from bench.report.plots.style import COLOURS, series_styles
from bench.report.run_reader import Run
from bench.store.run_directory import SCHEMA, frame

OVER_PROTOCOLS = "quality_against_training_images"
BUILT_IN = [
    "metric_by_model", "quality_against_energy", OVER_PROTOCOLS,
    "quality_by_time_step", "noise_robustness",
    "firing_rate_by_layer", "firing_rate_by_time_step", "training_curves", "reconstructions",
    "samples", "nearest_training_images", "latent_noise", "latent_rasters",
]  # fmt: skip
OF_ONE_PROTOCOL = [name for name in BUILT_IN if name != OVER_PROTOCOLS]
FROM_FILES = [
    "reconstructions", "samples", "nearest_training_images", "latent_noise", "latent_rasters",
]  # fmt: skip
ODD = "$x_{1}$ <b>&amp;% \\frac{1}{2}"


def draw(name, run):
    return draw_plot(load_plots([name])[name], run)


def write_run(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"schema_version": 2, "commands": []}))
    table = pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
    pq.write_table(table, folder / "results.parquet")
    return folder


def row(**changes):
    return {
        "schema_version": 2, "cell_key": "k0", "model": "m", "model_version": "1", "backend": "b",
        "dataset": "d", "dataset_variant": "complete", "protocol": "p", "protocol_hash": "h",
        "seed": 0, "epoch_selection": "last", "split": "test", "metric": "reconstruction_loss",
        "metric_version": "1", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 10,
        "status": "ok", "unit": "1", "higher_is_better": False, "device": "cpu", **changes,
    }  # fmt: skip


def write_files(folder, spiking=True, seed=0, images=3):
    random = np.random.default_rng(seed)
    shape = (images, 1, 8, 8)
    arrays = {name: random.integers(0, 256, shape, dtype=np.uint8) for name in ("samples", "rest")}
    arrays["reconstructions"] = arrays.pop("rest")
    arrays["inputs"] = np.arange(images * 64, dtype=np.uint8).reshape(shape)
    if spiking:
        arrays["latent_shuffle"] = arrays["samples"]
        arrays["latent_flip"] = random.integers(0, 256, (6, *shape), dtype=np.uint8)
        arrays["latent_flip_levels"] = np.arange(1, 7) * 0.05
        latents = {name: random.random((4, images, 5)) < 0.4 for name in ("posterior", "prior")}
        np.savez(folder / "spikes.npz", **latents)
    np.savez(folder / "images.npz", **arrays)


@pytest.fixture(scope="module")
def whole_run(tiny_run, tmp_path_factory):
    """The tiny run with the files of images and spikes; read it, do not change it."""
    out = tmp_path_factory.mktemp("plots") / "run"
    shutil.copytree(tiny_run[0], out)
    for number, folder in enumerate(sorted((out / "cells").iterdir())):
        write_files(folder, not folder.name.startswith("ann_vae"), number)
    return out


@pytest.fixture
def no_collector():
    """No garbage collection while the test runs: what is freed is freed by its last reference."""
    gc.disable()
    yield
    gc.enable()


def test_every_plot_becomes_three_files(bench_cli, whole_run, tmp_path):
    code, out, err = bench_cli("plot", whole_run, "--out", tmp_path)
    assert (code, err) == (0, "")
    assert f"{OVER_PROTOCOLS}: not drawn: in no panel" in out
    for name in OF_ONE_PROTOCOL:
        assert f"{name}: {tmp_path / name}.png" in out
        root = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert pixels.shape[1] == 1440
        assert pixels.std() > 5
        assert len(pd.read_csv(tmp_path / f"{name}.csv"))


def test_only_the_plots_and_formats_asked_for(bench_cli, whole_run, tmp_path):
    code, *_ = bench_cli(
        "plot", whole_run, "samples", "metric_by_model", "--format", "svg", "--out", tmp_path
    )
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metric_by_model.csv", "metric_by_model.svg", "samples.csv", "samples.svg",
    ]  # fmt: skip


def test_only_the_cells_asked_for(bench_cli, whole_run, tmp_path):
    conditions = ["--where", "model=esvae,ann_vae", "--where", "backend=fused,torch"]
    plots = ["samples", "firing_rate_by_layer", "training_curves", "latent_rasters"]
    code, *_ = bench_cli("plot", whole_run, *plots, *conditions, "--out", tmp_path)
    assert code == 0
    drawn = {name: pd.read_csv(tmp_path / f"{name}.csv") for name in plots}
    cells = {
        name: set(zip(data["model"], data["backend"], strict=True)) for name, data in drawn.items()
    }
    both = {("ann_vae", "torch"), ("esvae", "fused")}
    assert cells["samples"] == cells["training_curves"] == both
    assert cells["firing_rate_by_layer"] == cells["latent_rasters"] == {("esvae", "fused")}


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (["--where", "model=esvea"], "Did you mean: esvae"),
        (["--where", "modle=esvae"], "Did you mean: model"),
        (["--where", "esvae"], "--where takes COLUMN=VALUE"),
        (["--where", "model=ann_vae", "--where", "backend=fused"], "rows has model=ann_vae and"),
    ],
)
def test_cells_that_are_not_there_are_a_mistake(bench_cli, whole_run, tmp_path, condition, told):
    code, _, err = bench_cli("plot", whole_run, *condition, "--out", tmp_path / "plots")
    assert code == 2
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "plots").exists()


def test_an_unknown_plot_suggests_near_ones(bench_cli, whole_run):
    code, _, err = bench_cli("plot", whole_run, "metric_by_modl")
    assert code == 2
    assert "Did you mean: metric_by_model?" in err


def test_a_folder_that_is_no_run(bench_cli, tmp_path):
    code, _, err = bench_cli("plot", tmp_path)
    assert code == 2
    assert err == f"Error: {tmp_path} is not a run directory: it has no run.json.\n"


def test_a_folder_that_cannot_be_written(bench_cli, whole_run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = bench_cli("plot", whole_run, "samples", "--out", tmp_path / "file" / "plots")
    assert code == 2
    assert "Choose another with --out." in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("metric_by_model", "ssim"),
        ("noise_robustness", "noise_robustness"),
        ("quality_by_time_step", "reconstruction_loss_by_time_step"),
        ("quality_against_energy", "fad"),
    ],
)
def test_values_are_the_rows(tiny_run, name, metric):
    data = draw(name, Run(tiny_run[0])).rows
    data = data[data["metric"] == metric]
    rows = tiny_run[1][tiny_run[1]["kind"] == "model"]
    rows = rows[(rows["metric"] == metric) & (rows["status"] == "ok")]
    assert sorted(data["value"]) == sorted(rows["value"])
    assert sorted(data["ci_low"].dropna()) == sorted(rows["ci_low"].dropna())


def test_firing_rates_are_the_rows(tiny_run):
    run, rows = Run(tiny_run[0]), tiny_run[1]
    rates = rows[(rows["metric"] == "firing_rate") & (rows["status"] == "ok")]
    by_layer = draw("firing_rate_by_layer", run).rows
    by_step = draw("firing_rate_by_time_step", run).rows
    layer, step = rates["layer"].notna(), rates["time_step"].notna()
    assert sorted(by_layer["value"]) == sorted(rates.loc[layer & ~step, "value"])
    assert sorted(by_step["value"]) == sorted(rates.loc[step & ~layer, "value"])


def test_training_curves_are_the_files(tiny_run):
    data = draw("training_curves", Run(tiny_run[0])).rows
    losses = []
    for path in tiny_run[0].glob("cells/*/training.json"):
        losses += [v for e in json.loads(path.read_text())["epochs"] for v in e["losses"].values()]
    assert sorted(data["value"]) == sorted(losses)


def test_scores_of_epochs_have_panels_behind_the_losses(tiny_run, tmp_path):
    shutil.copytree(tiny_run[0], tmp_path / "run")
    for path in (tmp_path / "run").glob("cells/*/training.json"):
        training = json.loads(path.read_text())
        (epoch,) = training["epochs"]
        scored = {**epoch, "scores": {"fad": 80.5}}
        path.write_text(json.dumps({**training, "epochs": [epoch, scored]}))
    drawing = draw("training_curves", Run(tmp_path / "run"))
    scores = drawing.rows[drawing.rows["kind"] == "score"]
    assert set(scores["loss"]) == {"fad"}
    assert set(zip(scores["epoch"], scores["value"], strict=True)) == {(2, 80.5)}
    assert scores["model"].nunique() == drawing.rows["model"].nunique() > 1
    labels = [ax.get_ylabel() for ax in drawing.figure.axes if ax.get_ylabel()]
    assert labels[0] == "reconstruction loss"
    assert labels[-1] == "fad"


def test_seeds_have_a_mean_and_its_interval(tmp_path):
    rows = [row(seed=seed, value=value) for seed, value in enumerate([1.0, 2.0, 3.0])]
    data = draw("metric_by_model", Run(write_run(tmp_path, frame(rows)))).rows
    assert list(data["value"]) == [1.0, 2.0, 3.0, 2.0]
    mean = data.iloc[-1]
    assert (mean["estimate"], mean["seeds"]) == ("mean over seeds", 3)
    assert mean["ci_high"] - mean["value"] == pytest.approx(4.302653 / np.sqrt(3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 20}, {"d, n=10", "d, n=20"}),
        (
            {"protocol": "q", "protocol_hash": "0123456789"},
            {"d, n=10, protocol p", "d, n=10, protocol q"},
        ),
        ({"protocol_hash": "0123456789"}, {"d, n=10, h", "d, n=10, 01234567"}),
        ({"extractor": "e"}, {"d, n=10, no extractor", "d, n=10, e"}),
        ({"metric_version": "2"}, {"d, n=10, metric version 1", "d, n=10, metric version 2"}),
        ({"dataset": "other"}, {"d, n=10", "other, n=10"}),
        ({"dataset_variant": "subset"}, {"d, n=10", "d (subset), n=10"}),
        ({"seed": 1, "device": "cuda"}, {"d, n=10"}),
    ],
)
def test_rows_that_are_not_comparable_share_no_panel(tmp_path, change, said):
    run = Run(write_run(tmp_path, frame([row(), row(cell_key="k1", **change)])))
    drawing = draw("metric_by_model", run)
    assert set(drawing.rows["context"]) == said
    titles = {ax.get_title("left") for ax in drawing.figure.axes if ax.get_title("left")}
    assert {" ".join(title.split()) for title in titles} == said


def test_models_under_one_protocol_share_a_panel_whatever_its_values_for_each(tmp_path):
    rows = [row(), row(cell_key="k1", model="other", protocol_hash="0123456789")]
    data = draw("metric_by_model", Run(write_run(tmp_path, frame(rows)))).rows
    assert set(data["context"]) == {"d, n=10"}


def test_energies_of_two_versions_share_no_panel(tmp_path):
    rows = [
        row(model=name, cell_key=name, metric=metric, metric_version=version, unit=unit)
        for name, energy_version in (("a", "1"), ("b", "2"))
        for metric, version, unit in [
            ("energy", energy_version, "pJ per image"),
            ("reconstruction_loss", "1", "1"),
        ]
    ]
    drawing = draw("quality_against_energy", Run(write_run(tmp_path, frame(rows))))
    titles = [ax.get_title("left") for ax in drawing.figure.axes]
    assert [" ".join(title.split()) for title in titles] == [
        "test: d, n=10; energy version 1", "test: d, n=10; energy version 2",
    ]  # fmt: skip
    assert drawing.rows["pareto"].all()


def test_quality_against_training_images_joins_protocols(tmp_path):
    def trained(protocol, epoch, value, **changes):
        key = f"{protocol}{changes}"
        known = {"metric": "reconstruction_loss", "train_images": 100, "epoch": epoch}
        return row(
            cell_key=key, protocol=protocol, protocol_hash=key, value=value, **known | changes
        )

    rows = [
        trained("short", 1, 0.5, model="a"),
        trained("long", 40, 0.1, model="a"),
        trained("short", 2, 0.4, model="b"),
        trained("long", 40, 0.3, model="a", metric="fad", split="generated"),
    ]
    drawing = draw(OVER_PROTOCOLS, Run(write_run(tmp_path, frame(rows))))
    points = drawing.rows.set_index(["model", "training_images"])["value"]
    assert points.to_dict() == {("a", 100): 0.5, ("a", 4000): 0.1, ("b", 200): 0.4}
    (panel,) = (ax for ax in drawing.figure.axes if ax.get_xlabel())
    assert panel.get_xscale() == "log"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["100", "200", "4,000"]


def test_values_on_a_logarithmic_axis_have_labels_over_their_budgets(tmp_path):
    """Fewer ticks of the budgets take none from the values, whose one power of ten says little."""
    known = {"metric": "efficientnet_frechet_distance", "split": "generated", "train_images": 100}
    rows = [
        row(cell_key=key, protocol_hash=key, epoch=epoch, value=value, **known)
        | {"ci_low": value - 1, "ci_high": value + 1}
        for key, epoch, value in (("short", 1, 390.0), ("long", 40, 35.0))
    ]
    drawing = draw(OVER_PROTOCOLS, Run(write_run(tmp_path, frame(rows))))
    drawing.figure.canvas.draw()
    (panel,) = (ax for ax in drawing.figure.axes if ax.get_xlabel())
    ticks = panel.yaxis.get_ticklabels(which="both")
    assert {"40", "60", "100", "200"} <= {tick.get_text() for tick in ticks}
    assert panel.xaxis.get_ticklabels(which="minor") == []


def test_one_budget_is_no_curve(tmp_path):
    rows = [row(metric="reconstruction_loss", train_images=100, epoch=2)]
    with pytest.raises(NotDrawnError, match="give several runs"):
        draw(OVER_PROTOCOLS, Run(write_run(tmp_path, frame(rows))))


def test_energies_are_shown_in_a_unit_that_fits_and_stored_in_the_rows_unit(tmp_path):
    energies = {"a": 4e6, "b": 25e6}
    rows = [
        row(
            model=name,
            cell_key=name,
            metric="energy",
            unit="pJ per image",
            value=value,
            split="generated",
        )
        for name, value in energies.items()
    ]
    drawing = draw("metric_by_model", Run(write_run(tmp_path, frame(rows))))
    (panel,) = (ax for ax in drawing.figure.axes if ax.get_xlabel())
    assert "µJ per image" in " ".join(panel.get_xlabel().split())
    ticks = dict(zip(panel.get_xticks(), panel.get_xticklabels(), strict=True))
    assert all(float(label.get_text()) == pytest.approx(at * 1e-6) for at, label in ticks.items())
    assert set(drawing.rows["value"]) == set(energies.values())


def test_an_interval_of_a_mean_ends_at_the_bounds_of_its_metric(tmp_path):
    rows = [
        row(cell_key=f"k{i}", seed=i, metric="reconstruction_loss", value=value)
        for i, value in enumerate((0.01, 0.5, 0.1))
    ]
    data = draw("metric_by_model", Run(write_run(tmp_path, frame(rows)))).rows
    mean = data[data["estimate"] != "seed"].iloc[0]
    assert mean["ci_low"] == 0
    assert mean["ci_high"] > 0.5


def test_the_images_timed_do_not_part_throughputs(tmp_path):
    rows = [
        row(cell_key=f"k{n}", model=f"m{n}", metric="training_throughput", unit="images/s", n=n)
        for n in (10, 20)
    ]
    run = Run(write_run(tmp_path, frame(rows)))
    assert set(measured_rows(run, ["training_throughput"])["context"]) == {"d"}


def test_protocols_whose_short_names_agree_keep_their_names():
    settings = ["batch_size=16", "latent_size=4", "train_images=64"]
    names = ["+".join(["smoke", *settings]), "+".join(["smoke", *reversed(settings)])]
    assert shorten_protocols(names) == dict(zip(names, names, strict=True))


def test_a_metric_that_declares_a_headline_has_a_panel(tmp_path):
    rows = [row(), row(metric="mine", split=None, value=3.0), row(metric="mine", value=4.0)]
    path = write_run(tmp_path, frame(rows))
    headline = {"rank": 5, "label": "mine", "views": ["metric_by_model"]}
    declared = {"metrics": {"mine": {"headline": headline}}}
    (path / "run.json").write_text(json.dumps({"schema_version": 2, "commands": [declared]}))
    data = draw("metric_by_model", Run(path)).rows
    assert list(zip(data["metric"], data["value"], strict=True)) == [
        ("mine", 3.0), ("reconstruction_loss", 0.5),
    ]  # fmt: skip


def test_two_versions_of_a_model_are_told_apart(tmp_path):
    run = Run(write_run(tmp_path, frame([row(), row(cell_key="k1", model_version="2")])))
    data = draw("metric_by_model", run).rows
    assert set(data["label"]) == {"m (version 1)", "m (version 2)"}


def test_the_pareto_front_is_what_nothing_beats(tmp_path):
    points = {"a": (1, 9), "b": (2, 5), "c": (3, 6), "d": (4, 1), "e": (5, 1)}
    rows = [
        row(model=name, cell_key=name, metric=metric, value=float(value), unit=unit)
        for name, (energy, loss) in points.items()
        for metric, value, unit in [
            ("energy", energy, "pJ per image"),
            ("reconstruction_loss", loss, "1"),
        ]
    ]
    data = draw("quality_against_energy", Run(write_run(tmp_path, frame(rows)))).rows
    assert set(data.loc[data["pareto"], "model"]) == {"a", "b", "d"}


@pytest.mark.parametrize("name", [ODD, "_hidden", "\\alpha$", "n" * 60, "a\nb\x00c", "模型"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_odd_names_survive(bench_cli, tmp_path, name):
    rows = [
        row(model=name, dataset=name, noise_kind="input_x", noise_level=level, value=0.1 + level,
            metric="noise_robustness", backend=name, protocol=name)
        for level in (0.1, 0.2)
    ]  # fmt: skip
    run = write_run(tmp_path / "run", frame([*rows, row(model=name, dataset=name, backend=name)]))
    code, *_ = bench_cli("plot", run, "noise_robustness", "metric_by_model", "--out", tmp_path)
    assert code == 0
    shown = "".join(c if c.isprintable() else "" for c in name).replace(" ", "")
    for plot in ("noise_robustness", "metric_by_model"):
        said = "".join(ElementTree.parse(tmp_path / f"{plot}.svg").getroot().itertext())
        assert shown in "".join(said.split()).replace("\ufffd", "")
        # Before version 3.1, pandas reads a text only up to a null character.
        with (tmp_path / f"{plot}.csv").open(encoding="utf-8", newline="") as table:
            assert {line["model"] for line in csv.DictReader(table)} == {name}


def test_an_empty_run(bench_cli, tmp_path):
    code, out, err = bench_cli("plot", write_run(tmp_path, frame([])))
    assert (code, err) == (1, "")
    assert out.count("the run has no rows: run it first, with bench run") == len(BUILT_IN)
    assert not (tmp_path / "plots").exists()


def test_a_run_with_only_failures(bench_cli, tmp_path):
    failed = row(status="failed", value=None, ci_low=None, ci_high=None, reason="Boom:\n<it> broke")
    code, out, err = bench_cli("plot", write_run(tmp_path, frame([failed])))
    assert (code, err) == (1, "")
    assert "metric_by_model: not drawn: no row has a number of" in out
    assert "Boom: <it> broke" in out
    assert out.count("\n") == len(BUILT_IN)


def test_a_metric_nobody_knows_is_no_trouble(tmp_path):
    run = Run(write_run(tmp_path, frame([row(), row(metric="never_heard_of", unit=None)])))
    assert set(draw("metric_by_model", run).rows["metric"]) == {"reconstruction_loss"}


def test_a_run_without_the_files_says_to_run_again(bench_cli, tiny_run, tmp_path):
    shutil.copytree(tiny_run[0], tmp_path / "run")
    for path in (tmp_path / "run").glob("cells/*/*.npz"):
        path.unlink()
    code, out, _ = bench_cli("plot", tmp_path / "run", *FROM_FILES)
    assert code == 1
    assert out.count("run the same command again") == len(FROM_FILES)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:400]),
        lambda path: np.savez(path, samples=np.zeros((2, 3)), posterior=np.zeros(2)),
        lambda path: np.savez(path, samples=np.array([{}]), posterior=np.array([{}])),
    ],
)
def test_damaged_files_are_left_out_and_named(bench_cli, whole_run, tmp_path, damage):
    shutil.copytree(whole_run, tmp_path / "run")
    victim = sorted((tmp_path / "run").glob("cells/esvae-reference*"))[0]
    damage(victim / "images.npz")
    damage(victim / "spikes.npz")
    damage(victim / "nearest.npz")
    grids = ["samples", "nearest_training_images"]
    code, out, err = bench_cli(
        "plot", tmp_path / "run", *grids, "latent_rasters", "--where", "model=esvae",
        "--format", "svg",
    )  # fmt: skip
    assert (code, err) == (0, "")
    for file in ("images.npz", "spikes.npz", "nearest.npz"):
        assert f"left out: {victim / file} is damaged" in out
    for name in grids:
        left = pd.read_csv(tmp_path / "run" / "plots" / f"{name}.csv")
        assert ("esvae", "reference") not in set(zip(left["model"], left["backend"], strict=True))


def test_a_damaged_training_file_is_named(bench_cli, tiny_run, tmp_path):
    shutil.copytree(tiny_run[0], tmp_path / "run")
    for path in (tmp_path / "run").glob("cells/*/training.json"):
        path.write_text('{"epochs": [{"losses": {"loss": "much"}}]}')
    code, out, _ = bench_cli("plot", tmp_path / "run", "training_curves")
    assert code == 1
    assert "training_curves: not drawn:" in out
    assert "is damaged" in out


def test_a_grid_shows_the_pixels_of_the_files(whole_run):
    run = Run(whole_run)
    data = draw("latent_noise", run).rows
    tiles = data[(data["row"] == 0) & (data["model"] != "ann_vae")]
    assert list(tiles["array"]) == [
        "inputs", "reconstructions", "latent_shuffle", *["latent_flip"] * 6,
    ]  # fmt: skip
    assert list(tiles["noise_level"].dropna()) == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    for name in ("reconstructions", "samples"):
        drawing = draw(name, run)
        data = drawing.rows
        first = data[(data["row"] == 1) & (data["column"] == 0)].iloc[0]
        with np.load(whole_run / first["file"]) as arrays:
            expected = arrays[name][0, 0]
        shown = drawing.figure.axes[0].images[1].get_array()[..., 0]
        top = (shown.shape[0] - 8) // 2
        assert (shown[top : top + 8, :8] == expected).all()


def test_the_nearest_training_images_stand_below_the_samples(whole_run):
    drawing = draw("nearest_training_images", Run(whole_run))
    ax, data = drawing.figure.axes[0], drawing.rows
    assert set(data["array"]) == {"samples", "nearest"}
    for row, tiles in data.groupby("row"):
        with np.load(whole_run / tiles["file"].iloc[0]) as arrays:
            expected = arrays["samples" if row % 2 == 0 else "nearest"]
            assert list(tiles["distance"]) == pytest.approx(list(arrays["distances"]))
        shown = ax.images[row].get_array()[..., 0]
        top = (shown.shape[0] - 32) // 2
        assert (shown[top : top + 32, 1:33] == expected[0, 0]).all()
    distances = data.loc[data["array"] == "samples", "distance"]
    assert [float(text.get_text()) for text in ax.texts] == pytest.approx(list(distances), rel=0.01)
    below = {label.get_text() for label in ax.get_yticklabels()[1::2]}
    assert below == {"nearest training image\n(autoencoder)"}


def test_models_with_other_inputs_have_a_grid_of_their_own(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "run")
    victim = sorted((tmp_path / "run").glob("cells/esvae-reference*"))[0] / "images.npz"
    with np.load(victim) as file:
        arrays = dict(file)
    np.savez(victim, **{**arrays, "inputs": 255 - arrays["inputs"]})
    data = draw("reconstructions", Run(tmp_path / "run")).rows
    blocks = data.groupby("block")["model"].agg(set)
    assert len(blocks) == 2
    assert {"esvae"} in list(blocks)


def test_rasters_are_the_spikes(whole_run):
    data = draw("latent_rasters", Run(whole_run)).rows
    for (file, latent), spikes in data.groupby(["file", "latent"]):
        table = spikes.pivot(index="time_step", columns="neuron", values="spike").to_numpy()
        with np.load(whole_run / file) as arrays:
            assert (table == arrays[latent][:, 0]).all()


def test_many_models_stay_apart_in_colour_and_marker():
    styles = series_styles([f"m{i}" for i in range(12)]).values()
    assert len({style.marker for style in styles}) == 12
    assert len({style.colour for style in styles}) == len(COLOURS)


@pytest.mark.parametrize("models", [1, 12])
def test_type_is_legible_at_the_printed_size(tmp_path, models):
    rows = [
        row(model=f"{i:02d}_" + "long_name_" * 5 + "1234567", cell_key=f"k{i}", backend=backend)
        for i in range(models)
        for backend in ("x", "y")
    ]
    run = Run(write_run(tmp_path, frame(rows)))
    figure = draw("metric_by_model", run).figure
    assert figure.get_size_inches()[0] <= 7.2
    ax = figure.axes[0]
    texts = [*ax.get_yticklabels(), *ax.get_xticklabels(), ax.xaxis.label, *figure.legends[0].texts]
    assert min(text.get_fontsize() for text in texts) >= 8
    assert ax.get_position().width * 7.2 > 1
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    for upper, lower in pairwise(boxes):
        assert upper.y0 >= lower.y1 - 1
    assert min(box.x0 for box in boxes) >= 0


def test_a_closed_drawing_frees_its_pixels_without_the_collector(whole_run, no_collector):
    drawing = draw("samples", Run(whole_run))
    drawing.render("svg")
    images = [weakref.ref(image) for ax in drawing.figure.axes for image in ax.images]
    drawing.close()
    assert images
    assert [image for image in images if image()] == []


def test_a_figure_renders_to_the_same_bytes(tiny_run):
    run = Run(tiny_run[0])
    first, second = (draw("quality_by_time_step", run).render("svg") for _ in range(2))
    assert first == second


def test_built_in_plots_keep_their_order_and_have_a_caption():
    plots = load_plots()
    assert list(plots) == BUILT_IN
    for plot in plots.values():
        assert plot.title
        assert plot.caption.endswith(".")


def under_two_protocols(run, out, settings):
    """Copy a run twice, under protocols of a number of settings that all differ."""
    rows = frame(pq.read_table(run / "results.parquet").to_pylist())
    twins = []
    for number in range(2):
        names = [f"models.esvae.a_setting_{i}={number}" for i in range(settings)]
        keys = {key: f"{number}{key[1:]}" for key in rows["cell_key"].unique()}
        changes = {"protocol": "+".join(["smoke", *names]), "protocol_hash": str(number) * 64}
        twins.append(rows.assign(cell_key=rows["cell_key"].map(keys), **changes))
        for folder in (run / "cells").iterdir():
            name, _, key = folder.name.rpartition("-")
            shutil.copytree(folder, out / "cells" / f"{name}-{keys[key]}")
    return write_run(out, pd.concat(twins, ignore_index=True))


@pytest.fixture(scope="module")
def two_long_protocols(whole_run, tmp_path_factory):
    """The tiny run twice, under protocols of many settings."""
    return under_two_protocols(whole_run, tmp_path_factory.mktemp("protocols") / "run", 12)


def line_boxes(text):
    """Return the boxes of the lines of a text that is aligned at its left, without blank lines."""
    box, lines = text.get_window_extent(), text.get_text().split("\n")
    height, width = box.height / len(lines), box.width / max(map(len, lines))
    return [
        Bbox.from_bounds(box.x0, box.y1 - (i + 1) * height, width * len(line), height).padded(-2)
        for i, line in enumerate(lines)
        if line.strip()
    ]


def check_apart(titles):
    for one, other in combinations(titles, 2):
        for box, others in product(line_boxes(one), line_boxes(other)):
            assert not box.overlaps(others), (one.get_text(), other.get_text())


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_title_of_a_row_stays_off_the_titles_of_its_panels(whole_run, tmp_path):
    figure = draw("training_curves", Run(under_two_protocols(whole_run, tmp_path, 2))).figure
    check_apart(text for ax in figure.axes for text in [*ax.texts, ax._left_title])
    epochs = {tick for ax in figure.axes if ax.axison for tick in ax.get_xticks()}
    assert all(tick == int(tick) for tick in epochs)


def test_the_title_of_a_row_stays_off_its_panels_titles_where_an_axis_has_a_power_of_ten(
    two_long_protocols, tmp_path
):
    rows = frame(pq.read_table(two_long_protocols / "results.parquet").to_pylist())
    run = write_run(tmp_path, rows.assign(value=rows["value"] * 1e-7))
    figure = draw("noise_robustness", Run(run)).figure
    axes = [ax for ax in figure.axes if ax.axison]
    figure.canvas.draw()
    assert any(ax.yaxis.get_offset_text().get_text() for ax in axes)
    check_apart(text for ax in axes for text in [*ax.texts, ax._left_title])


@pytest.mark.parametrize("name", OF_ONE_PROTOCOL)
@pytest.mark.filterwarnings("error::UserWarning")
def test_long_titles_stay_in_the_figure_and_off_other_panels(two_long_protocols, name):
    figure = draw(name, Run(two_long_protocols)).figure
    shown = [ax for ax in figure.axes if ax.axison]
    titles = {
        text: ax
        for ax in shown
        for text in [*ax.texts, ax._left_title]
        if text.get_text().strip() not in ("", "n/a")
        and not text.get_text().replace(".", "").isdigit()
    }
    assert any("a_setting_11=1" in "".join(text.get_text().split()) for text in titles)
    for text, own in titles.items():
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1 + 1
        for ax in shown:
            if ax is not own:
                assert not box.overlaps(ax.get_window_extent().padded(-1))
    check_apart(titles)
    for ax in shown:
        assert min(ax.get_window_extent().size / figure.dpi) > 0.3
