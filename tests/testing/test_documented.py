"""Examples of the docs keep their contracts, and the docs' test runs."""

import re
from pathlib import Path

import pytest

from bench.testing import check_backend, check_dataset, check_metric, check_model, verdict

ROOT = Path(__file__).parents[2]


def example(page, name):
    """Run the block of Python on a page that defines a name; gives what it defines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if f"class {name}" in block or f"def {name}" in block
    )
    defined = {"__name__": "example"}
    exec(code, defined)
    return defined[name]


@pytest.mark.parametrize(
    ("page", "name", "check"),
    [
        ("README.md", "Mine", lambda cls: check_model(cls, device="cpu")),
        ("docs/neuron.md", "MyBackend", lambda cls: check_backend(cls, "cpu")),
        ("docs/plugins.md", "MeanAbsoluteError", lambda cls: check_metric(cls, "cpu")),
        ("docs/plugins.md", "Stripes", lambda cls: check_dataset(cls, "/")),
    ],
)
def test_an_example_of_the_docs_passes(page, name, check):
    results = check(example(page, name))
    assert [each for each in results if each.outcome == "failed"] == []
    if name == "MyBackend":
        assert verdict(results) == "exact"


def test_the_test_of_the_docs_runs_each_check():
    test = example("docs/plugins.md", "test_psnr")
    (mark,) = test.pytestmark
    name, checks = mark.args
    assert name == "check"
    assert len(checks) >= 6
    for check in checks:
        test(check)
