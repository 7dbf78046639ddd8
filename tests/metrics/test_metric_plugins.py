"""A plug-in metric that breaks its contract fails alone, and its row says why."""

import pickle

import pytest
from tiny import SLOW_METRICS

import bench
from bench import registry
from bench.errors import BenchError
from bench.metrics.unusable import load_metric

METRIC = """
class {name}(Metric):
    name, unit, higher_is_better, tolerance = "{registered}", "1", False, 0.05
    needs = frozenset({{"reconstructions"}})
    images = 0

    def update(self, batch):
        self.images += len(batch.images)

    def compute(self, facts):
        yield Observation(1.5, n=self.images, split="test")
{body}
"""
HEADER = "import numpy, torch\nfrom bench.metrics.metric import Metric, Observation\n"
YIELD = "    def compute(self, facts):\n        yield {}"
OBSERVE = YIELD.format("Observation({})")
ACCEPTED = {
    "m_plain": ("", 1.5),
    "m_tensor": (OBSERVE.format("torch.tensor(2.5), n=torch.tensor(24), split='test'"), 2.5),
    "m_numpy": (OBSERVE.format("numpy.float32(0.5), n=numpy.int64(24), split='test'"), 0.5),
    "m_reads": (
        "    needs = frozenset({'reconstructions', 'activity'})\n"
        "    def update(self, batch): self.images += len(batch.images) * (len(batch.activity) > 0)",
        1.5,
    ),
    "m_int": (OBSERVE.format("3, n=24, split='test', layer='a', time_step=numpy.int32(1)"), 3.0),
}
REFUSED = {
    "m_none": (OBSERVE.format("None, n=24"), "m_none yielded the value None; yield a number"),
    "m_nan": (OBSERVE.format("float('nan')"), "the value is nan"),
    "m_vector": (OBSERVE.format("torch.ones(2)"), "value = a Tensor of shape (2,); expected a num"),
    "m_words": (OBSERVE.format("'0.5'"), "yielded value = '0.5'; expected a number"),
    "m_layer": (OBSERVE.format("1.0, layer=3"), "yielded layer = 3; expected a string or None"),
    "m_step": (OBSERVE.format("1.0, time_step='1'"), "time_step = '1'; expected a whole number"),
    "m_zero": (OBSERVE.format("1.0, time_step=0"), "time_step = 0; expected a whole number from 1"),
    "m_n": (OBSERVE.format("1.0, n=2.5"), "yielded n = 2.5; expected a whole number from 0"),
    "m_split": (OBSERVE.format("1.0, split='valid'"), "split = 'valid'; expected one of None, 'tr"),
    "m_status": (OBSERVE.format("1.0, status='fine'"), "yielded status = 'fine'; expected one of"),
    "m_both": (OBSERVE.format("1.0, status='failed'"), "yielded value = 1.0; expected None"),
    "m_mute": (OBSERVE.format("None, status='failed'"), "reason = None; expected the reason"),
    "m_interval": (OBSERVE.format("1.0, ci_low=[0]"), "yielded ci_low = [0]; expected a number"),
    "m_bare": (YIELD.format("0.5"), "m_bare (M_bare) yielded 0.5; yield Observation(value, n="),
    "m_return": ("    def compute(self, facts): return 0.5", "returned 0.5; yield observations"),
    "m_activity": (
        "    def update(self, batch): self.images += len(batch.activity)",
        "is recorded for metrics that need it only: list 'activity'",
    ),
    "m_empty": ("    def compute(self, facts): return []", "yielded no observation"),
    "m_compute": (YIELD.format("1 / 0"), "ZeroDivisionError"),
    "m_update": ("    def update(self, batch): raise OSError('full')", "OSError: full"),
    "m_init": ("    def __init__(self, protocol): raise OSError('no')", "OSError: no"),
    "m_rules": ("    def inapplicable(self): raise OSError('no')", "OSError: no"),
    "m_unit": ("    unit = None", "the attribute unit of M_unit is None; set it to a string"),
    "m_tolerance": ("    tolerance = '5 %'", "tolerance of M_tolerance is '5 %'; set it to a numb"),
    "m_direction": ("    higher_is_better = 'yes'", "is 'yes'; set it to True, False or None"),
    "m_version": ("    version = 2", "the attribute version of M_version is 2; set it to a string"),
    "m_needs": ("    needs = {'images'}", "set it to a frozenset of some of activity, features"),
    "m_need": ("    needs = 'spikes'", "the attribute needs of M_need is 'spikes'; set it to"),
    "m_extractors": ("    extractors = 'pixels'", "is 'pixels'; set it to a tuple of strings"),
    "m_unknown": ("    extractors = ('fid',)", "Unknown extractor 'fid'. "),
    "m_name": ("    name = 'mine'", "is 'mine'; set it to 'm_name', the name of the entry point"),
}


def source(registered, body):
    return METRIC.format(name=registered.capitalize(), registered=registered, body=body)


@pytest.fixture
def metrics(plugins):
    """Install metrics of a module by their registered names."""

    def install(sources, **others):
        text = HEADER + "".join(sources.values()) + "".join(others.values())
        names = {name: f"plugin_metrics:{name.capitalize()}" for name in [*sources, *others]}
        plugins("plugin_metrics", text, metrics=names)

    return install


def test_a_metric_that_breaks_its_contract_fails_alone(metrics, tiny, tmp_path):
    sources = {name: source(name, body) for name, (body, _) in {**ACCEPTED, **REFUSED}.items()}
    metrics(
        sources,
        m_function="def M_function(protocol): pass\n",
        m_abstract="class M_abstract(M_plain): name, compute = 'm_abstract', Metric.compute\n",
        m_lacking="class M_lacking(Metric):\n    name = 'm_lacking'\n    compute = None\n",
    )
    asked = {"settings": tiny, "skip": SLOW_METRICS, "out": tmp_path / "run"}
    rows = bench.run("ann_vae", **asked)
    rows = rows[rows["kind"] == "model"].set_index("metric")
    for name, (_, value) in ACCEPTED.items():
        assert (rows.loc[name, "status"], rows.loc[name, "value"]) == ("ok", value)
        assert rows.loc[name, "n"] == 24
    refused = {name: words for name, (_, words) in REFUSED.items()} | {
        "m_function": "is not a subclass of bench.metrics.metric.Metric",
        "m_abstract": "M_abstract is abstract: it lacks the methods compute",
        "m_lacking": "M_lacking lacks the attribute unit; set it to a string",
    }
    for name, words in refused.items():
        assert rows.loc[name, "status"] == ("skipped" if name == "m_unknown" else "failed"), name
        assert words in rows.loc[name, "reason"], name
    built_in = rows[~rows.index.str.startswith("m_")]
    assert set(built_in["status"]) <= {"ok", "not_applicable", "skipped", "not_asked"}
    assert (built_in.loc["psnr", "status"], len(built_in) > 40) == ("ok", True)


def test_a_metric_that_cannot_be_imported_is_skipped(plugins, tiny_flags, bench_cli, tmp_path):
    plugins("plugin_broken", "raise OSError('no licence')", metrics={"m_plain": "plugin_broken:X"})
    arguments = ["run", "--models", "ann_vae", *tiny_flags, "--metrics", "psnr,m_plain",
                 "--out", tmp_path / "run"]  # fmt: skip
    code, out, _ = bench_cli(*arguments)
    assert code == 0
    reason = "The metric 'm_plain' cannot be imported from plugin_broken:X"
    assert f"skipped: ann_vae/torch/digits/seed 0: {reason}" in out
    assert bench_cli(*arguments, "--strict")[0] == 1
    code, out, _ = bench_cli(*arguments, "--dry-run")
    assert " skipped" in out.split("ann_vae")[1]


def test_the_stand_in_of_a_metric_is_known_in_other_processes(plugins):
    plugins("plugin_broken", "raise SystemExit", metrics={"broken": "plugin_broken:X"})
    with pytest.raises(BenchError, match=r"cannot be imported .* SystemExit"):
        registry.metrics.load("broken")
    metric = load_metric("broken")
    again = pickle.loads(pickle.dumps(metric))
    assert (again.name, str(again.error)) == ("broken", str(metric.error))


@pytest.mark.parametrize("source", ["raise OSError('no licence')", "class X: pass"])
def test_a_broken_extractor_leaves_its_metrics_without_a_number(plugins, tiny, tmp_path, source):
    text = HEADER + METRIC.format(
        name="Reading", registered="reading", body="    extractors = ('broken',)"
    )
    plugins("plugin_broken", source, extractors={"broken": "plugin_broken:X"})
    plugins("plugin_reading", text, metrics={"reading": "plugin_reading:Reading"})
    asked = {"settings": tiny, "metrics": "psnr,reading", "out": tmp_path / "run"}
    rows = bench.run("ann_vae", **asked)
    (row,) = rows[rows["metric"] == "reading"].itertuples()
    assert row.status == ("skipped" if "OSError" in source else "failed")
    assert "The extractor 'broken' cannot be" in row.reason
    assert set(rows.loc[rows["metric"] == "psnr", "status"]) == {"ok"}


FAILING_CHECK = """
from bench.errors import SkippedError
from bench.metrics.extractors.extractor import Extractor


class X(Extractor):
    @classmethod
    def unavailable(cls, resources):
        raise OSError("no licence server")

    def __init__(self, context):
        raise SkippedError("no weights")

    def __call__(self, images):
        raise NotImplementedError
"""


def test_an_extractor_whose_check_of_availability_fails_breaks_nothing_else(
    plugins, tiny_flags, bench_cli, tmp_path
):
    text = HEADER + METRIC.format(
        name="Reading", registered="reading", body="    extractors = ('checked',)"
    )
    plugins("plugin_checked", FAILING_CHECK, extractors={"checked": "plugin_checked:X"})
    plugins("plugin_reading", text, metrics={"reading": "plugin_reading:Reading"})
    arguments = ["run", "--models", "ann_vae", *tiny_flags, "--metrics", "psnr,reading",
                 "--out", tmp_path / "run"]  # fmt: skip
    assert bench_cli(*arguments)[0] == 0
    # Only now, that the metric was skipped before, the run asks whether it is available.
    code, out, _ = bench_cli(*arguments)
    assert (code, "already done" in out) == (0, True)
    code, out, _ = bench_cli("doctor")
    assert code == 0
    assert "checked: cannot be used: X.unavailable failed: OSError: no licence server." in out
