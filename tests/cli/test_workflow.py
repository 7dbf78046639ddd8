"""The workflow and the scripts of docs/gate.md, held against the command line as it is."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from bench.cli import cli

PAGE = (Path(__file__).parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
(WORKFLOW,) = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
(JOB,) = WORKFLOW["jobs"].values()
STEPS = JOB["steps"]
SCRIPTS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


def commands(script):
    """Every call of ``bench`` in a shell script, as its words."""
    for line in script.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\||;", line):
            words = shlex.split(part, comments=True)
            if words and words[0] == "bench":
                yield words[1:]


def parsed(words):
    """The options of a command, from the parser of the real command line."""
    group = cli
    context = click.Context(cli, info_name="bench")
    while isinstance(group, click.Group):
        name, command, words = group.resolve_command(context, words)
        context, group = click.Context(command, parent=context, info_name=name), command
    return name, group.make_context(name, list(words)).params


RUNS = [words for step in STEPS for words in commands(step.get("run", ""))]


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_every_command_of_the_workflow_parses(words):
    parsed(words)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_the_scripts_parses(script):
    for words in commands(script):
        parsed(words)


def test_the_steps_work_on_the_same_folders():
    known = [parsed(words) for words in RUNS]
    (run,) = (options for name, options in known if name == "run")
    compared = [options for name, options in known if name == "compare"]
    (report,) = (options for name, options in known if name == "report")
    assert {str(options["run"]) for options in compared} == {str(run["out"])}
    assert {str(options["reference"]) for options in compared} == set(run["reference"])
    assert [str(path) for path in report["directories"]] == [str(run["out"])]
    assert {options["output_format"] for options in compared} == {"github", "md"}
    upload = next(step for step in STEPS if "upload-artifact" in step.get("uses", ""))
    assert upload["with"]["path"] == str(report["out"])
    assert upload["if"] == "always()"


def test_a_run_ends_before_its_job():
    (run,) = (options for name, options in map(parsed, RUNS) if name == "run")
    minutes = float(run["time_limit"].removesuffix("min"))
    assert minutes < JOB["timeout-minutes"]


def test_pip_and_the_suite_have_caches_and_torch_is_for_the_cpu():
    (python,) = (step["with"] for step in STEPS if "setup-python" in step.get("uses", ""))
    assert python["cache"] == "pip"
    (cache,) = (step["with"] for step in STEPS if "actions/cache" in step.get("uses", ""))
    assert cache["path"] in JOB["env"]["BENCH_CACHE"]
    (install,) = (step["run"] for step in STEPS if "pip install" in step.get("run", ""))
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in install


def test_an_option_that_does_not_exist_is_found():
    with pytest.raises(click.NoSuchOption):
        parsed(["run", "--time-limits", "50min"])
