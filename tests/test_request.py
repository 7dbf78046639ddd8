"""One request behind ``bench.run`` and ``bench.profile`` and their commands."""

import importlib
import inspect
from dataclasses import MISSING, fields

import pytest

import bench
from bench import BenchError
from bench.cli import cluster
from bench.request import ProfileRequest, Request, RunRequest

# Options of a command that are about its output, not about what is run.
OWN = {"strict", "dry_run", "file_format"}
PARAMETRIZED = pytest.mark.parametrize(
    ("name", "request_class"), [("run", RunRequest), ("profile", ProfileRequest)]
)


def defaults(request_class):
    return {
        field.name: field.default
        for field in fields(request_class)
        if field.default is not MISSING and field.name not in ("_", "reporter")
    }


@PARAMETRIZED
def test_the_public_function_takes_the_fields_of_its_request(name, request_class):
    parameters = inspect.signature(getattr(bench, name)).parameters
    expected = inspect.signature(request_class).parameters
    assert {**parameters} == {**expected}
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["models", "datasets", "backends", "protocol"]


@PARAMETRIZED
def test_the_command_has_an_option_with_the_same_default_for_each_field(name, request_class):
    command = importlib.import_module(f"bench.cli.{name}").command
    values = command.make_context(name, []).params
    if name == "run":
        # Each executor has a command of its own.
        values |= {**cluster.run.make_context("run", []).params, "executor": "local"}
        # A script that does not guard its main module can only run cells in its own process.
        assert values.pop("jobs") is None
        values["jobs"] = 1
    assert {key: values[key] for key in values.keys() - OWN} == defaults(request_class)


def test_names_are_lists_or_texts_with_commas():
    assert Request("a, b,").model_names == Request(iter(["a", "b"])).model_names == ("a", "b")
    with pytest.raises(BenchError, match=r"Expected names, got \[1\]"):
        assert Request([1]).model_names


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="'modles'"):
        bench.run(modles="ann_vae")
