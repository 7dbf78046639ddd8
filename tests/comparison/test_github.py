"""``bench compare --format github``: annotations of GitHub Actions."""

import re

import pytest
from test_comparison import gate, row, rows, run_directory  # noqa: F401


def annotations(out):
    """The annotations as GitHub reads them: (level, title, message)."""
    found = re.findall(r"^::(error|warning|notice) title=([^:,\n]*)::(.*)$", out, re.MULTILINE)
    assert len(found) == sum(line.startswith("::") for line in out.splitlines())
    escapes = {"%3A": ":", "%2C": ",", "%0D": "\r", "%0A": "\n", "%25": "%"}

    def decoded(text):
        assert not re.search(r"%(?!25|0D|0A|3A|2C)", text)
        return re.sub("|".join(escapes), lambda match: escapes[match[0]], text)

    return [(level, decoded(title), decoded(message)) for level, title, message in found]


def test_each_kind_has_a_level_of_its_own(gate):  # noqa: F811
    here = [row(9.0), row(1.0, metric="fid", n=7), row(9.0, metric="kid", processor="other"),
            row(1.0, metric="ssim")]  # fmt: skip
    reference = [row(1.0), row(1.0, metric="fid"), row(1.0, metric="kid"), row(1.0, metric="ssim"),
                 row(1.0, metric="psnr"), row(1.0, model="gone")]  # fmt: skip
    code, out, _ = gate(here, reference, "--format", "github")
    assert code == 1
    assert out.splitlines()[0].startswith("Regression: 1 observation is worse")
    shown = {(level, title.partition(":")[0], message.split(":")[0].split(" (")[0])
             for level, title, message in annotations(out)}  # fmt: skip
    assert shown == {
        ("error", "Worse", "loss"),
        ("warning", "Missing", "psnr"),
        ("warning", "Missing", "whole cell"),
        ("notice", "Incomparable", "fid"),
        ("notice", "Inconclusive", "kid"),
    }
    (error,) = (message for level, _, message in annotations(out) if level == "error")
    assert error.startswith("loss (test): 1 -> 9, +800 %")


def test_under_strict_what_counts_moves_up(gate):  # noqa: F811
    here = [row(9.0, higher_is_better=None), row(1.0, metric="fid", n=7)]
    reference = [row(1.0, higher_is_better=None), row(1.0, metric="fid")]
    _, out, _ = gate(here, reference, "--format", "github")
    assert [level for level, *_ in annotations(out)] == ["notice"]
    _, out, _ = gate(here, reference, "--format", "github", "--strict")
    assert [level for level, *_ in annotations(out)] == ["error", "warning"]


@pytest.mark.parametrize("count", [9, 10, 11, 37])
def test_at_most_ten_of_a_level_appear(gate, count):  # noqa: F811
    here = [row(9.0, metric=f"m{i}") for i in range(count)]
    reference = [row(1.0, metric=f"m{i}") for i in range(count)]
    _, out, _ = gate(here, reference, "--format", "github")
    found = annotations(out)
    assert len(found) == min(count, 10)
    last = f"{count - 9} more: " if count > 10 else "m"
    assert found[-1][2].startswith(last)


def test_names_cannot_break_out_of_an_annotation(gate):  # noqa: F811
    odd = "a::b,c%0A%\r\n::error title=x::y"
    _, out, _ = gate([row(9.0, model=odd)], [row(1.0, model=odd)], "--format", "github")
    ((level, title, _),) = annotations(out)
    assert (level, title) == ("error", f"Worse: {odd} / torch / digits")


def test_nothing_to_say_is_one_line(gate):  # noqa: F811
    code, out, _ = gate(rows([1.0]), rows([1.0]), "--format", "github")
    assert (code, out) == (0, "No regression.\n")


def test_nothing_comparable_is_a_warning(gate):  # noqa: F811
    code, out, _ = gate([row(1.0)], [], "--format", "github")
    assert code == 3
    assert [level for level, *_ in annotations(out)] == ["warning"]


def test_it_goes_to_a_file_too(gate, tmp_path):  # noqa: F811
    path = tmp_path / "annotations"
    _, out, _ = gate([row(9.0)], [row(1.0)], "--format", "github", "--out", path)
    assert "::error" not in out
    assert len(annotations(path.read_text())) == 1
