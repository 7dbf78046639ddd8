"""``bench site``: the leaderboard of several runs as static pages."""

import itertools
import json
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from page_runs import ODD, SCRIPT, failed, row, write_run
from scipy import stats
from test_page import Page, seeds

import bench
from bench import BenchError
from bench.protocol import Protocol, load_protocol
from bench.report.page.model_tables import model_tables
from bench.report.run_reader import Run
from bench.report.site.write_site import write_site

ROOT = Path(__file__).parents[2]
UP = "../../up"
SHARED = "digits-protocol-smoke-values-of-a-smoke-and-b-smoke"
VALUES = {"vae": (0.40, 0.41, 0.42), "gan": (0.90, 0.91, 0.92), "diffusion": (0.41, 0.42, 0.43)}


def speed(model, values, **changes):
    changes = {"unit": "images/s", "split": "train", "higher_is_better": True} | changes
    return seeds(model, "training_throughput", values, **changes)


class Built:
    """A site: its folder, its pages and its JSON."""

    def __init__(self, folder):
        self.folder = folder
        self.index = Page((folder / "index.html").read_text())
        self.data = json.loads(
            (folder / "leaderboard.json").read_text(), parse_constant=lambda text: 1 / 0
        )

    def entries(self, **facts):
        entries = self.data["entries"]
        return [e for e in entries if all(e[name] == fact for name, fact in facts.items())]

    def numbers(self, metric, **facts):
        """The metric's numbers by the name of the entry in its tab."""
        return {
            entry["name"]: each
            for entry in self.entries(**facts)
            for each in entry["metrics"]
            if each["metric"] == metric
        }

    def page(self, run, model):
        models = {
            m["name"]: m["page"] for r in self.data["runs"] if r["name"] == run for m in r["models"]
        }
        return Page((self.folder / models[model]).read_text())


@pytest.fixture
def site(bench_cli, tmp_path):
    """Build a site of runs; gives it, and fails if anything is said on standard error."""

    def build(*runs, out="public"):
        code, said, err = bench_cli("site", *runs, "--out", tmp_path / out)
        assert (code, err) == (0, "")
        assert str(tmp_path / out / "index.html") in said
        return Built(tmp_path / out)

    return build


@pytest.fixture(scope="module")
def made_runs(tmp_path_factory):
    """Two runs of the same name, which share a protocol's values, and one with other values."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [each for model in VALUES for each in seeds(model, values=VALUES[model])]
    rows += [each for model in VALUES for each in speed(model, (90.0, 91.0, 92.0))]
    rows += seeds("vae", values=VALUES["vae"], backend="reference")
    rows += [*seeds(SCRIPT, values=(5.0,)), *seeds(UP, values=(6.0, float("inf")))]
    rows += [failed("ValueError: no luck", model="broken")]
    other = seeds("vae", values=(0.1, 0.2, 0.3), device="GPU", version="2.0")
    other += speed("vae", (900.0, 901.0, 902.0), device="GPU", version="2.0")
    changed = seeds("vae", values=(0.7,), protocol_hash="b" * 64)
    changed += seeds("only_here", values=(0.8,), protocol_hash="c" * 64)
    return [
        write_run(folder / "a" / "smoke", rows),
        write_run(folder / "b" / "smoke", other),
        write_run(folder / "changed", changed),
    ]


@pytest.fixture(scope="module")
def made(made_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "public"
    write_site(made_runs, out)
    return Built(out)


def test_numbers_are_means_and_half_intervals_over_seeds(made):
    numbers = made.numbers("reconstruction_loss", run="a/smoke")
    for model, values in VALUES.items():
        name = "vae (a/smoke)" if model == "vae" else model
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
        found = numbers[name]
        assert [found["mean"], found["half_interval"]] == pytest.approx([np.mean(values), half])
        assert (found["n"], found["unit"], found["higher_is_better"]) == (20, "1", False)
        assert (found["interval_over"], found["seeds"]) == ("seeds", 3)


def test_an_entry_says_what_was_measured_where(made):
    (entry,) = made.entries(run="b/smoke")
    assert entry["seeds"] == [0, 1, 2]
    assert entry["training_images"] == 200
    assert entry["protocol"] == {"name": "smoke", "hash": "a" * 64}
    assert entry["dataset"] == {
        "name": "digits", "variant": "complete", "fingerprint": "f" * 64,
    }  # fmt: skip
    assert (entry["devices"], entry["suite_versions"]) == (["GPU"], ["2.0"])
    (folded,) = made.entries(run="a/smoke", model="vae")
    assert folded["backends"] == ["reference", "torch"]


def test_a_table_of_one_run_is_the_table_of_its_report(site, tmp_path):
    rows = [each for model in VALUES for each in seeds(model, values=VALUES[model])]
    path = write_run(tmp_path / "run", [*rows, *seeds("gan", "ssim", higher_is_better=True)])
    (table,) = model_tables(Run(path))
    built = site(path)
    text = " ".join(built.index.text.split())
    for line in (*table.rows, table.footer):
        for entry in line:
            assert " ".join(f"{entry.text} {entry.detail}".split()) in text
    assert " ".join(table.note.split()) in text


def test_a_lead_within_chance_is_undecided(made):
    """The best mean has a wide interval; a name without an interval cannot be separated from it."""
    numbers = made.numbers("reconstruction_loss", tab=SHARED)
    verdicts = {name: each["verdict"] for name, each in numbers.items()}
    assert verdicts.pop("gan") == "worse"
    assert verdicts.pop("broken") is None
    assert set(verdicts) == {"vae (a/smoke)", "vae (b/smoke)", "diffusion", SCRIPT, UP}
    assert set(verdicts.values()) == {"undecided"}


def test_a_clear_winner_is_best_and_bold(site, tmp_path):
    rows = [each for model in ("vae", "gan") for each in seeds(model, values=VALUES[model])]
    built = site(write_run(tmp_path / "run", rows))
    verdicts = {n: e["verdict"] for n, e in built.numbers("reconstruction_loss").items()}
    assert verdicts == {"vae": "best", "gan": "worse"}
    assert [tag for tag, _ in built.index.tags].count("strong") == 1
    assert "Welch's t-test decides" in built.index.text


def test_speed_on_different_devices_is_not_compared(made):
    speeds = made.numbers("training_throughput", tab=SHARED)
    assert {each["verdict"] for each in speeds.values()} == {"not_comparable"}
    assert "GPU; suite 2.0" in made.index.text
    assert "cpu; suite 1.0" in made.index.text
    assert "Speed and memory on different devices are not comparable." in made.index.text


def test_other_values_of_a_protocol_are_another_tab_that_names_its_runs(made):
    titles = {tab["id"]: tab["title"] for tab in made.data["tabs"]}
    assert list(titles.values()) == [
        "digits, protocol smoke, values of a/smoke and b/smoke",
        "digits, protocol smoke, values of changed",
    ]
    _, changed = titles
    assert {entry["model"] for entry in made.entries(tab=changed)} == {"vae", "only_here"}
    assert "a model has another protocol hash" in made.index.text


def test_a_number_that_is_none_is_null_with_its_reason(made):
    (entry,) = made.entries(model="../../up")
    (found,) = entry["metrics"]
    assert (found["mean"], found["reason"]) == (None, "the value is inf")
    (broken,) = made.entries(model="broken")
    (found,) = broken["metrics"]
    assert (found["mean"], found["status"], found["reason"]) == (
        None, "failed", "ValueError: no luck",
    )  # fmt: skip
    assert found["in_table"]


def test_files_stay_in_the_folder_and_have_plain_names(made):
    files = [path.relative_to(made.folder) for path in made.folder.rglob("*") if path.is_file()]
    assert {len(path.parts) for path in files} <= {1, 2, 3}
    assert all(
        re.fullmatch(r"[A-Za-z0-9_+=][A-Za-z0-9_.+=-]*", part) for f in files for part in f.parts
    )
    pages = [m["page"] for run in made.data["runs"] for m in run["models"]]
    assert len({page.lower() for page in pages}) == len(pages) == 9
    assert sorted(path.name for path in made.folder.parent.iterdir()) == ["public"]


def test_every_link_leads_somewhere(made):
    for path in made.folder.rglob("*.html"):
        page = Page(path.read_text())
        links = page.all("a", "href") + page.all("img", "src")
        assert len(links) > 3
        for link in links:
            name, _, fragment = link.partition("#")
            target = path.parent / unquote(name) if name else path
            assert target.is_file(), (path, link)
            if fragment:
                ids = {a.get("id") for _, a in Page(target.read_text()).tags}
                assert fragment in ids, (path, link)
        assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object"})


def test_names_with_html_are_text(made):
    assert SCRIPT in made.index.text
    page = made.page("a/smoke", SCRIPT)
    for each in (made.index, page):
        assert [tag for tag, _ in each.tags].count("script") == 1
    assert (1, SCRIPT) in page.headings
    assert (1, UP) in made.page("a/smoke", UP).headings


def test_a_page_shows_its_own_model_only(made):
    page = made.page("a/smoke", "gan")
    assert "of the run a/smoke" in page.text
    assert page.all("img", "alt") == [
        "Test images: digits",
        "Their reconstructions: gan/torch on digits, seed 0",
        "Samples: gan/torch on digits, seed 0",
    ]
    assert "diffusion" not in page.text
    assert "f" * 64 in page.text
    failing = made.page("a/smoke", "broken")
    assert "ValueError: no luck" in failing.text
    assert "Nothing was measured" in failing.text


def test_headings_never_skip_a_level(made):
    for path in made.folder.rglob("*.html"):
        levels = [level for level, _ in Page(path.read_text()).headings]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_equal_runs_give_equal_bytes_and_a_site_is_replaced(made, made_runs, tmp_path):
    out = tmp_path / "public"
    out.mkdir()
    write_site(made_runs[2:], out)
    first = contents(out)
    write_site(made_runs, out)
    assert contents(out) == contents(made.folder) != first
    assert [path.name for path in tmp_path.iterdir()] == ["public"]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("content", ["index.html", "leaderboard.json", "file", "added"])
def test_a_folder_with_other_contents_is_refused_and_left_as_it_is(
    bench_cli, made, made_runs, tmp_path, content
):
    out = tmp_path / "mine"
    if content == "file":
        out.write_text("mine")
    elif content == "added":
        shutil.copytree(made.folder, out)
        (out / "CNAME").write_text("mine.example")
    else:
        out.mkdir()
        (out / content).write_text('{"schema_version": 1}')
    before = out.read_text() if out.is_file() else contents(out)
    code, _, err = bench_cli("site", made_runs[2], "--out", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "choose another folder with --out" in err
    assert ("CNAME" in err) == (content == "added")
    assert before == (out.read_text() if out.is_file() else contents(out))


def test_a_place_that_cannot_be_written_is_one_line(bench_cli, made_runs, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = bench_cli("site", made_runs[2], "--out", tmp_path / "file" / "public")
    assert (code, err.count("\n")) == (2, 1)
    assert "Choose another folder with --out" in err


@pytest.mark.parametrize("after", [True, False])
def test_a_folder_that_is_no_run(after, bench_cli, made_runs, tmp_path):
    directories = [made_runs[2], tmp_path] if after else [tmp_path]
    code, out, err = bench_cli("site", *directories, "--out", tmp_path / "public")
    assert (code, out) == (2, "")
    with pytest.raises(BenchError) as error:
        bench.load_results(tmp_path)
    assert err == f"Error: {error.value}\n"
    assert not (tmp_path / "public").exists()


def test_a_run_that_is_given_twice_is_there_once(bench_cli, made_runs, tmp_path):
    path = made_runs[2]
    copy = shutil.copytree(path, tmp_path / "copy")
    code, said, err = bench_cli("site", path, path, copy, "--out", tmp_path / "public")
    assert code == 0
    assert "2 models of 1 run" in said
    assert err.count("has the same rows as an earlier directory") == 2
    assert [run["name"] for run in Built(tmp_path / "public").data["runs"]] == ["changed"]


def test_runs_without_numbers_say_so(site, tmp_path):
    empty = write_run(tmp_path / "empty", [], planned=["x"])
    broken = write_run(tmp_path / "broken", [failed("ValueError: no luck", model="gan")])
    built = site(empty, broken)
    assert (built.data["tabs"], built.data["entries"]) == ([], [])
    assert "no row of these runs has a value of a main metric" in built.index.text
    assert "This run has no rows yet." in built.index.text
    assert "Nothing was measured" in built.index.text
    assert "ValueError: no luck" in built.page("broken", "gan").text


def test_a_metric_that_nobody_declares_and_a_name_for_formulas(site, tmp_path):
    rows = [*seeds(ODD), row(ODD, metric=SCRIPT, unit=SCRIPT, split=None, n=None)]
    built = site(write_run(tmp_path / "run", rows))
    (entry,) = built.entries(model=ODD)
    assert {each["metric"]: each["in_table"] for each in entry["metrics"]} == {
        "reconstruction_loss": True, SCRIPT: False,
    }  # fmt: skip


def commands_of(page):
    """The commands of a page, as lists of values by option."""
    for line in re.findall(r"bench run .*", page.text):
        words = shlex.split(line)[2:]
        options = {}
        for name, value in zip(words[::2], words[1::2], strict=True):
            options.setdefault(name, []).append(value)
        yield options


def command_of(page):
    (options,) = commands_of(page)
    return options


@pytest.mark.parametrize("settings", [[], ["epochs=7", "noise_levels=[0.1, 0.3]"]])
def test_the_command_states_the_protocol_that_the_rows_have(site, tmp_path, settings):
    protocol = load_protocol("smoke", settings)
    wanted = protocol.resolve("esvae", "digits").hash
    about = {"protocol": protocol.name, "protocol_hash": wanted, "backend": "fused"}
    built = site(write_run(tmp_path / "run", seeds("esvae", values=(0.5, 0.6), **about)))
    options = command_of(built.page("run", "esvae"))
    given = load_protocol(options["--protocol"][0], options.get("--set", []))
    assert given.resolve("esvae", "digits").hash == wanted
    assert options["--models"] == ["esvae"]
    assert options["--backends"] == ["fused"]
    assert options["--datasets"] == ["digits"]
    assert options["--seeds"] == ["0,1"]
    assert options["--device"] == ["cpu"]


def test_backends_with_other_seeds_or_devices_have_commands_of_their_own(site, tmp_path):
    cells = [("fused", 0, "cpu"), ("fused", 1, "cpu"), ("reference", 0, "cpu"), ("fused", 2, "GPU")]
    rows = [row("esvae", seed, backend=backend, device=on) for backend, seed, on in cells]
    page = site(write_run(tmp_path / "run", rows)).page("run", "esvae")
    made = {
        (backend, int(seed), on.replace("cuda", "GPU"))
        for options in commands_of(page)
        for backend in options["--backends"][0].split(",")
        for seed in options["--seeds"][0].split(",")
        for on in options["--device"]
    }
    assert made == set(cells)
    assert [text for level, text in page.headings if level == 3].count(
        "digits, protocol smoke"
    ) == 1


def test_a_protocol_of_one_s_own_comes_as_a_file_that_the_command_reads(site, tmp_path):
    own = load_protocol("smoke").model_dump()
    own |= {"name": "mine", "overrides": (), "models": {"esvae": {"reset_order": 'a "b" é'}}}
    own |= {"surrogate": {"centre": 0.5, "width": 1e-5}, "reset_gradient": False}
    resolved = Protocol.model_validate(own).resolve("esvae", "digits")
    path = write_run(tmp_path / "run", seeds("esvae", protocol="mine", protocol_hash=resolved.hash))
    for file in path.glob("cells/*/cell.json"):
        content = json.loads(file.read_text())
        content["resolved_protocol"] = resolved.model_dump(mode="json")
        file.write_text(json.dumps(content))
    built = site(path)
    page = built.page("run", "esvae")
    (name,) = command_of(page)["--protocol"]
    (file,) = built.folder.glob(f"models/*/{name}")
    given = load_protocol(file)
    assert given.name == "mine"
    assert given.resolve("esvae", "digits").hash == resolved.hash
    settings = page.text.split("Values of the protocol and options")[1].split("Provenance")[0]
    assert "surrogate.centre" in settings
    assert "membrane_decay" not in settings


def test_numbers_without_a_command_say_why(site, tmp_path):
    rows = [
        *seeds("images", backend="external", epoch=None, train_images=None),
        *seeds("old", protocol_hash="d" * 64),
    ]
    built = site(write_run(tmp_path / "run", rows))
    assert "bench score" in built.page("run", "images").text
    assert "bench run" not in built.page("run", "images").text.partition("Provenance")[0]
    assert "This release does not know these values" in built.page("run", "old").text


def test_a_reference_is_a_run(tmp_path):
    write_site([ROOT / "results" / "reference" / "selection"], tmp_path / "public")
    built = Built(tmp_path / "public")
    assert built.entries()
    assert all(entry["suite_versions"] for entry in built.entries())
    assert any(each["verdict"] for entry in built.entries() for each in entry["metrics"])
    entry = built.entries()[0]
    page = built.page(entry["run"], entry["model"])
    assert entry["dataset"]["fingerprint"] in page.text
    assert "git_commit" in page.text
