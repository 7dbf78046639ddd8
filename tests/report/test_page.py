import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from page_runs import ODD, SCRIPT, failed, row, write_run

from bench.report.page.comparability import comparison_warnings
from bench.report.run_reader import Run
from bench.store.run_directory import frame
from bench.system.formatting import number, with_interval

ORDER = [
    *("Summary", "Warnings", "Measurements", "Tables"),
    *("Plots", "Images", "Provenance", "Missing numbers"),
]


class Page(HTMLParser):
    """What a page says and refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.headings = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_data(self, data):
        self.text += data
        if self.headings and not self.headings[-1][1]:
            self.headings[-1] = (self.headings[-1][0], data)

    def all(self, name, attribute):
        return [attributes[attribute] for tag, attributes in self.tags if tag == name]


def seeds(model="vae", metric="reconstruction_loss", values=(0.4, 0.5, 0.6), **changes):
    return [row(model, i, metric, value, **changes) for i, value in enumerate(values)]


@pytest.fixture
def report(bench_cli):
    """Report on rows; gives the page."""

    def build(path, *options):
        code, out, err = bench_cli("report", path, *options)
        assert (code, err) == (0, "")
        return Page((path / "report.html").read_text()), out

    return build


@pytest.fixture
def markdown(bench_cli):
    def build(path):
        code, _, err = bench_cli("report", path, "--format", "md")
        assert (code, err) == (0, "")
        return (path / "report.md").read_text()

    return build


@pytest.fixture(scope="module")
def real_page(tiny_run, tiny_page):
    """The page of a real run, and the run's rows."""
    return Page(tiny_page.read_text()), tiny_run[1]


def test_page_of_a_real_run_is_one_file_where_it_was_asked_for(tiny_page):
    assert [file.name for file in tiny_page.parent.iterdir()] == ["page.html"]


def test_page_of_a_real_run_refers_to_nothing_outside_of_it(real_page):
    page, rows = real_page
    assert all(source.startswith("data:image/") for source in page.all("img", "src"))
    assert all(re.match("#|data:", target) for target in page.all("a", "href"))
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object"})
    assert not [attributes for tag, attributes in page.tags if tag == "script" and attributes]
    for name in rows["model"].unique():
        assert name in page.text


def test_sections_come_in_order_and_headings_never_skip_a_level(real_page):
    page, _ = real_page
    second = [text for level, text in page.headings if level == 2]
    assert [text.partition(":")[0] for text in second] == ORDER
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_image_has_words_and_every_table_a_caption(real_page):
    page, _ = real_page
    assert all(page.all("img", "alt"))
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") > 3


def test_the_page_is_where_it_was_asked_for(bench_cli, tmp_path):
    path, out = write_run(tmp_path / "run", [row()]), tmp_path / "elsewhere" / "page.html"
    code, said, _ = bench_cli("report", path, "--out", out)
    assert code == 0
    assert str(out) in said
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert not (path / "report.html").exists()


@pytest.mark.usefixtures("one_plot")
def test_headline_is_mean_and_interval_over_seeds(markdown, tmp_path):
    text = markdown(write_run(tmp_path / "run", seeds()))
    # Student's t at 0.975 with 2 degrees of freedom is 4.3027: 4.3027 * 0.1 / sqrt(3) = 0.248.
    assert "| vae torch | 3 | 200 | 0.50 ± 0.25 |" in text


@pytest.mark.usefixtures("one_plot")
def test_headline_of_one_seed_has_no_interval(markdown, tmp_path):
    assert "| vae torch | 1 | 200 | 0.5 |" in markdown(write_run(tmp_path / "run", [row()]))


@pytest.mark.usefixtures("one_plot")
def test_headline_tells_datasets_apart_by_name_alone_where_that_is_enough(markdown, tmp_path):
    other = {"dataset": "mnist", "dataset_fingerprint": "e" * 64, "dataset_variant": "subset"}
    of_two = [row(), row(backend="fused"), row(**other, train_images=7)]
    of_two.append(row("gan", model_version="2"))
    assert "fingerprint | seeds" not in markdown(write_run(tmp_path / "two", of_two))
    text = markdown(
        write_run(tmp_path / "three", [*of_two, row(seed=1, dataset_fingerprint="d" * 64)])
    )
    assert "| model | backend | dataset | fingerprint | seeds |" in text
    assert f"| {'d' * 12} |" in text


@pytest.mark.usefixtures("one_plot")
def test_headline_separates_protocols(markdown, tmp_path):
    rows = [row(), row(value=0.7, protocol="quick", protocol_hash="b" * 64)]
    text = markdown(write_run(tmp_path / "run", rows))
    lines = [line for line in text.splitlines() if line.startswith("| vae | torch | digits |")]
    assert [line for line in lines if "| smoke |" in line and "| 0.5 |" in line]
    assert [line for line in lines if "| quick |" in line and "| 0.7 |" in line]


def test_an_extractor_is_not_among_the_models(markdown, tmp_path):
    own = {"kind": "extractor", "model_version": "7", "dataset_variant": "subset"}
    rows = [*seeds(), row("trained", metric="autoencoder_reconstruction_loss", value=0.25, **own)]
    rows.append(row("trained", metric="reconstruction_loss", value=0.75, **own))
    path = write_run(tmp_path / "run", rows)
    text = markdown(path)
    assert "- models: vae\n" in text
    assert "- extractors: trained\n" in text
    assert "None: within each dataset, metric and split all cells are comparable." in text
    tables = dict(re.findall(r"^### (.+?)\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE))
    assert [name for name, table in tables.items() if "| trained |" in table] == ["Extractors"]
    assert "| trained | digits | autoencoder\\_reconstruction\\_loss | 0.25 |" in text
    assert set(Run(path).cells["model"]) == {"vae"}
    assert comparison_warnings(frame(rows)) == []


def test_names_with_html_and_markdown_are_shown_as_they_are(report, markdown, tmp_path):
    rows = [*seeds(SCRIPT), *seeds(ODD), failed(SCRIPT, model=ODD, seed=7, metric="ssim")]
    path = write_run(tmp_path / SCRIPT.replace("/", ""), rows)
    page, _ = report(path)
    scripts = [tag for tag, _ in page.tags if tag == "script"]
    assert len(scripts) == 1
    assert SCRIPT in page.text
    assert ODD in page.text
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(path))
    rendered = Page(html)
    assert "script" not in {tag for tag, _ in rendered.tags}
    assert SCRIPT in rendered.text
    assert ODD in rendered.text


def test_markdown_tables_have_as_many_entries_as_headings(markdown, tmp_path):
    text = markdown(write_run(tmp_path / "run", [*seeds(SCRIPT), *seeds(ODD)]))
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) > 4
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1


def test_markdown_links_only_files_that_are_there(markdown, tmp_path):
    path = write_run(tmp_path / "run", seeds())
    links = re.findall(r"\]\(<([^>]+)>\)", markdown(path))
    assert len(links) > 3
    assert all((path / link).stat().st_size for link in links)


def test_failed_and_skipped_cells_are_there_with_their_reasons(report, tmp_path):
    rows = [
        *seeds(),
        failed("ValueError: no such thing", model="gan", metric="reconstruction_loss"),
        failed("no weights: give --weights", model="vae", metric="fid", status="skipped"),
    ]
    page, _ = report(write_run(tmp_path / "run", rows))
    assert "ValueError: no such thing" in page.text
    assert "gan/torch/digits seed 0" in page.text
    assert "no weights: give --weights" in page.text
    assert "4: 2 ok, 1 incomplete, 1 failed" in page.text


def test_a_cell_that_lacks_some_numbers_is_not_called_skipped(report, tmp_path):
    lacking = failed("no weights: give --weights", metric="fid", status="skipped")
    without = failed("no such dataset here", model="gan", metric="fid", status="skipped")
    page, _ = report(write_run(tmp_path / "run", [*seeds(), lacking, without]))
    assert "4: 2 ok, 1 incomplete, 1 skipped" in page.text


def test_cells_that_were_asked_for_and_are_absent_are_counted(report, tmp_path):
    page, _ = report(write_run(tmp_path / "run", seeds(), planned=["x", "y"]))
    assert "2 more were requested and have no rows" in page.text


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "This run has no rows yet."),
        ([failed("ValueError: broken")], "Nothing was measured"),
        ([failed("nothing here", status="skipped")], "Nothing was measured"),
        ([row(metric="of_nobody")], "of nobody"),
        ([row(metric=SCRIPT, unit=SCRIPT, extractor=SCRIPT)], SCRIPT),
        ([row(split=None, n=None, epoch_selection=None, higher_is_better=None)], "vae"),
    ],
)
def test_runs_with_little_in_them_still_have_a_page(report, markdown, tmp_path, rows, said):
    path = write_run(tmp_path / "run", rows)
    page, _ = report(path)
    assert said in page.text
    assert [text.partition(":")[0] for level, text in page.headings if level == 2] == ORDER
    assert markdown(path).startswith("# Report of run")


@pytest.mark.usefixtures("one_plot")
def test_a_paper_s_table_is_there_where_the_run_has_numbers_for_it(report, markdown, tmp_path):
    page, _ = report(write_run(tmp_path / "digits", [row()]))
    assert "fsvae-table-1" not in page.text
    measured = row("fsvae", 0, "fid_official", 101.5, dataset="mnist", split="generated")
    text = markdown(write_run(tmp_path / "mnist", [measured]))
    (line,) = [line for line in text.splitlines() if "97.06" in line]
    assert "101.5" in line
    assert "+4.44" in line
    assert "protocol smoke, not fsvae" in line
    page, _ = report(tmp_path / "mnist")
    assert "fsvae-table-1: arXiv:2110.00375" in page.text
    assert "esvae-table-1" not in page.text


def test_a_plot_that_cannot_be_drawn_says_why(report, tmp_path):
    page, _ = report(write_run(tmp_path / "run", [row(metric="of_nobody")]))
    assert page.text.count("Not drawn: ") > 5


@pytest.mark.usefixtures("one_plot")
def test_provenance_is_what_the_run_noted_down(report, tmp_path):
    page, _ = report(write_run(tmp_path / "run", seeds()))
    assert f"--models {SCRIPT}" in page.text
    assert "models.vae.k" in page.text
    assert "f" * 64 in page.text


def test_a_folder_that_is_no_run(bench_cli, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        code, out, err = bench_cli("report", path)
        assert (code, out) == (2, "")
        assert "is not a run directory" in err
        assert err.count("\n") == 1


def test_a_damaged_cell_is_one_line(bench_cli, tmp_path):
    path = write_run(tmp_path / "run", [row()])
    broken = next(path.glob("cells/*/cell.json"))
    broken.write_text("{")
    code, _, err = bench_cli("report", path)
    assert code == 2
    assert str(broken) in err
    assert err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_one_line(bench_cli, tmp_path):
    path = write_run(tmp_path / "run", [row()])
    (tmp_path / "file").write_text("")
    code, _, err = bench_cli("report", path, "--out", tmp_path / "file" / "report.html")
    assert code == 2
    assert "Choose another file with --out" in err


def test_a_run_json_that_is_no_object_is_one_line(bench_cli, tmp_path):
    path = write_run(tmp_path / "run", [row()])
    (path / "run.json").write_text(json.dumps([1]))
    code, _, err = bench_cli("report", path)
    assert code == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("n", 20, 30),
        ("extractor", "inception", "autoencoder"),
        ("extractor_sha256", "1" * 64, "2" * 64),
        ("protocol", "smoke", "quick"),
        ("dataset_variant", "complete", "external"),
        ("train_images", 100, 200),
        ("dataset_fingerprint", "1" * 64, "2" * 64),
        ("metric_version", "1", "2"),
        ("epoch_selection", "last", "best_test_loss"),
    ],
)
def test_a_difference_is_a_warning_with_both_values_and_who_has_them(field, one, other):
    found = comparison_warnings(frame([row("vae", **{field: one}), row("gan", **{field: other})]))
    assert [warning.field for warning in found] == [field]
    texts = dict(found[0].values)
    assert set(texts.values()) == {"vae/torch", "gan/torch"}
    assert [str(value)[:12] in " ".join(texts) for value in (one, other)] == [True, True]


def test_versions_differ_within_a_model_only():
    rows = [row("vae", model_version="1"), row("gan", model_version="2")]
    assert comparison_warnings(frame(rows)) == []
    rows.append(row("vae", seed=1, model_version="2"))
    (warning,) = comparison_warnings(frame(rows))
    assert warning.field == "model_version"
    assert "vae/torch seed 1" in str(warning)


def test_other_datasets_splits_and_metrics_are_not_set_side_by_side():
    rows = [
        row(n=1),
        row(n=2, metric="ssim"),
        row(n=3, split="generated"),
        row(n=4, dataset="mnist", dataset_fingerprint="0" * 64),
        failed("no", model="gan", n=5),
    ]
    assert comparison_warnings(frame(rows)) == []


def test_several_n_within_each_cell_are_no_difference():
    rows = [row(model, n=n, noise_kind=str(n)) for model in ("vae", "gan") for n in (1, 2)]
    assert comparison_warnings(frame(rows)) == []


def test_subsets_and_substitutes_are_told_though_all_agree():
    found = comparison_warnings(frame(seeds(dataset_variant="subset")))
    assert ["a subset of the dataset" in str(warning) for warning in found] == [True]
    found = comparison_warnings(frame(seeds(dataset_variant="substitute")))
    assert ["in the dataset's place" in str(warning) for warning in found] == [True]


def test_how_long_a_throughput_was_timed_is_no_difference():
    rows = [row(m, n=n, unit="images/s") for m, n in (("vae", 1), ("gan", 2))]
    assert comparison_warnings(frame(rows)) == []


def test_networks_that_no_paper_describes_are_a_warning():
    published = row("swgan", model_version="1")
    assert comparison_warnings(frame([published])) == []
    own = row("sgad", model_version="1+unpublished.ours_32")
    scored = row("sgan", model_version="1+unpublished.ours_64+0123456789abcdef")
    warnings = comparison_warnings(frame([published, own, scored]))
    found = {warning.values for warning in warnings if warning.field == "model_version"}
    assert found == {(("ours_32", "sgad/torch"),), (("ours_64", "sgan/torch"),)}
    assert "networks that no paper describes" in str(warnings[0])


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)))
def test_warnings_do_not_depend_on_the_order_of_rows(order):
    rows = [row(m, s, n=n) for m, n in (("vae", 1), ("gan", 2), ("nvae", 1)) for s in (0, 1)]

    def told(table):
        return {
            (w.field, frozenset((v, frozenset(who.split(", "))) for v, who in w.values))
            for w in comparison_warnings(table)
        }

    in_order = told(frame(rows))
    assert told(frame([rows[i] for i in order])) == in_order
    assert len(in_order) == 1


@given(st.floats(-1e300, 1e300))
def test_a_number_keeps_four_digits(value):
    shown = float(number(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (0.5, 0.49, 0.51, "0.500 ± 0.010"),
        (0.5, None, None, "0.5"),
        (7.0, 7.0, 7.0, "7"),
        (203207.0, 185207.0, 221207.0, "203,207 ± 18,000"),
        (-0.01, -0.06, 0.04, "-0.010 ± 0.050"),
        (1e-7, 0, 2e-7, "1.00e-07 ± 1.0e-07"),
        (None, None, None, ""),
        (float("inf"), None, None, "inf"),
    ],
)
def test_a_mean_has_the_decimals_of_its_interval(value, low, high, shown):
    assert with_interval(value, low, high) == shown
