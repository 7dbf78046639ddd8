"""``bench check`` for plug-ins of another package."""

import inspect
import re
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from bench import registry
from bench.cli import check, cli


def test_a_backend_with_another_neuron_is_told(bench_cli, plugins):
    plugins(
        "plugin_soft", "from toys import SoftBackend", backends={"soft": "plugin_soft:SoftBackend"}
    )
    code, out, _ = bench_cli("check", "backend", "soft", "--device", "cpu")
    assert code == 1
    assert re.search(r"neuron of the smoke protocol +failed +another neuron: \d+ of \d+", out)
    assert out.splitlines()[-1] == "Verdict: another neuron."


def test_a_good_backend_has_exit_code_0(bench_cli):
    code, out, _ = bench_cli("check", "backend", "reference", "--device", "cpu")
    assert (code, out.splitlines()[-1]) == (0, "Verdict: exact.")
    assert out.splitlines()[-2] == "26 passed."


def test_a_model_is_checked_on_a_backend_and_with_settings(bench_cli, plugins):
    source = "import toys\nclass X(toys.Steady):\n    pass"
    plugins("plugin_x", source, models={"x": "plugin_x:X"})
    code, out, _ = bench_cli("check", "model", "x", "--set", "image_size=8", "--device", "cpu")
    assert code == 1
    assert re.search(r"change parameters +failed +4 training steps change no parameter", out)


def test_a_metric_and_a_dataset(bench_cli):
    assert bench_cli("check", "metric", "parameter_count", "--device", "cpu")[0] == 0
    assert bench_cli("check", "dataset", "digits")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model", "esvea"], "Unknown model 'esvea'. Did you mean: esvae"),
        (["plot", "samples"], "'plot' is not one of"),
        (["metric", "psnr", "--backend", "fused"], "--backend belongs to bench check model"),
        (["backend", "fused", "--data-root", "x"], "--data-root belongs to bench check dataset"),
        (["model", "esvae", "--set", "epoch=3"], "epoch"),
        (["backend", "fused", "--device", "tpu"], "Unknown device 'tpu'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(bench_cli, arguments, words):
    code, _, err = bench_cli("check", *arguments)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("kind", check.KINDS)
def test_names_are_completed_by_kind(kind):
    complete = ShellComplete(cli, {}, "bench", "_BENCH_COMPLETE")
    names = [item.value for item in complete.get_completions(["check", kind], "")]
    assert names == registry.registries()[f"{kind}s"].names()


def test_what_the_checks_need_does_not_come_from_pytest():
    folder = Path(inspect.getfile(check)).parents[1] / "testing"
    assert not [path for path in folder.glob("*.py") if "pytest" in _imports(path)]


def _imports(path):
    return set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
