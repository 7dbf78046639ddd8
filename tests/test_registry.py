import resource
import subprocess
import sys

import pytest

from bench import registry
from bench.cli import VERBS
from bench.errors import BenchError, UnknownNameError


def test_built_in_names():
    assert registry.models.names() == [
        "ann_vae", "esvae", "fsvae", "sddpm", "sgad", "sgan", "spiking_diffusion", "swgan", "taid",
        "vq_svae",
    ]  # fmt: skip
    assert registry.backends.names() == ["fused", "reference", "snntorch", "spikingjelly"]
    assert registry.datasets.names() == ["celeba", "cifar10", "digits", "fashion_mnist", "mnist"]


def test_an_unknown_name_suggests_and_lists():
    with pytest.raises(UnknownNameError) as error:
        registry.models.load("fsave")
    assert str(error.value) == (
        "Unknown model 'fsave'. Did you mean: fsvae? Available: ann_vae, esvae, fsvae, "
        "sddpm, sgad, sgan, spiking_diffusion, swgan, taid, vq_svae."
    )


def test_every_registered_thing_loads_under_its_own_name():
    for known in (registry.metrics, registry.datasets):
        for name in known.names():
            assert known.load(name).name == name
    for known in (registry.models, registry.backends):
        for name in known.names():
            assert isinstance(known.load(name), type)


def test_every_entry_says_what_it_is_and_where_it_comes_from():
    for known in registry.registries().values():
        for entry in known.entries():
            assert entry.summary.endswith((".", ")")), entry
            assert entry.package.startswith("spikegen-bench ")


def test_a_plugin_that_fails_at_import_is_listed_and_told(plugins):
    plugins("plugin_broken", "raise OSError('no licence')", models={"broken": "plugin_broken:X"})
    assert "broken" in registry.models.names()
    with pytest.raises(BenchError, match=r"'broken' cannot be imported .* OSError: no licence"):
        registry.models.load("broken")
    assert registry.models.load("esvae").__name__ == "ESVAE"


def test_a_name_claimed_twice_is_refused(plugins):
    plugins("plugin_thief", "class X: pass", models={"fsvae": "plugin_thief:X"})
    with pytest.raises(BenchError, match="claimed by several packages"):
        registry.models.load("fsvae")


HEAVY = {"torch", "pandas", "numpy"}
QUICK = [
    ["--help"],
    ["--version"],
    ["ls", "models"],
    ["ls", "metrics"],
    ["ls", "extractors"],
    ["ls", "protocols"],
    *([verb, "--help"] for verb in VERBS),
    ["reference", "update", "--help"],
    ["cluster", "run", "--help"],
    ["data", "fetch", "--help"],
]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_the_quick_answers_import_no_heavy_library(arguments):
    code = (
        f"import sys; sys.argv = ['bench', *{arguments!r}]\n"
        "from bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit_: assert not exit_.code, exit_.code\n"
        f"assert not {HEAVY!r} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "libraries"),
    [
        (["--help"], "import click"),
        (["ls", "models"], "import click, rich.table"),
        (["ls", "protocols"], "import click, rich.table; from pydantic import BaseModel"),
    ],
)
def test_the_quick_answers_take_less_than_four_times_as_long_as_their_libraries(
    arguments, libraries
):
    """Processor time, the best of three runs in turn: machines differ, and do other things too."""
    answer, imports = zip(
        *(
            (processor_time("-m", "bench", *arguments), processor_time("-c", libraries))
            for _ in range(3)
        ),
        strict=True,
    )
    assert min(answer) < 4 * min(imports)


def processor_time(*arguments):
    """Return the seconds of processor time that Python takes with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_an_attribute_is_read_without_importing_the_plugin():
    code = (
        "import sys\n"
        "from bench.registry import metrics\n"
        "values = {name: metrics.attribute(name, 'extractors') for name in metrics.names()}\n"
        "assert 'torch' not in sys.modules\n"
        "assert values == {name: metrics.load(name).extractors for name in metrics.names()}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "source",
    [
        "class X:\n    needs = tuple('ab')",
        "class Y:\n    needs: tuple = ()\nclass Z:\n    needs = ('a', 'b')\nclass X(Z, Y): pass",
        "X = type('X', (), {'needs': ('a', 'b')})",
    ],
)
def test_an_attribute_that_is_no_literal_is_that_of_the_class(plugins, source):
    plugins("plugin_x", source, models={"x": "plugin_x:X"})
    assert registry.models.attribute("x", "needs") == ("a", "b")


def test_importing_bench_imports_no_torch():
    code = "import sys, bench; dir(bench); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
