"""The wheel: typed, and described by the project's metadata."""

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", folder, ROOT], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_both_packages_are_marked_as_typed(wheel):
    assert {"bench/py.typed", "baselines/py.typed", "bench/__main__.py"} <= set(wheel.namelist())


def test_the_metadata_say_who_and_where(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Author"] == "The spikegen-bench authors"
    urls = [url.split(", ")[0] for url in metadata.get_all("Project-URL")]
    assert {"Repository", "Documentation", "Changelog"} <= set(urls)
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert re.findall(r"\]\((?!https://)", metadata.get_payload()) == []
