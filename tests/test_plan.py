from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

from bench.errors import BenchError
from bench.plan.run_plan import make_plan
from bench.protocol import Override, load_protocol
from bench.registry import models
from bench.request import Request


@pytest.fixture
def plan(tmp_path):
    def plan(seeds=None, **changes):
        request = Request(**{"models": "ann_vae,esvae", "data_root": tmp_path, **changes})
        return make_plan(request, seeds, download=False)

    return plan


def test_all_means_every_registered_one(plan):
    cells = plan(models=("all",), datasets=("all",)).cells
    assert {cell.model for cell in cells} == {"ann_vae", "esvae", "fsvae", "taid"}
    assert {cell.dataset for cell in cells} == {
        "digits", "mnist", "fashion_mnist", "cifar10", "celeba",
    }  # fmt: skip
    assert len(cells) == 5 * 13


def test_a_model_without_spikes_runs_once_whatever_the_backends(plan):
    for backends in (("all",), ("snntorch",)):
        cells = [cell for cell in plan(backends=backends).cells if cell.model == "ann_vae"]
        assert [cell.backend for cell in cells] == ["torch"]


def test_what_is_named_twice_runs_once(plan):
    cells = plan(models=("esvae", "esvae"), backends=("reference", "reference"), seeds=(1, 1)).cells
    assert len(cells) == 1


def test_seeds_are_the_protocols_unless_given(plan):
    protocol = load_protocol("smoke", ["seeds=[5, 6]"])
    assert {cell.seed for cell in plan(protocol=protocol).cells} == {5, 6}
    assert {cell.seed for cell in plan(protocol=protocol, seeds=(9,)).cells} == {9}


def test_cells_keep_their_keys(plan):
    first, second = plan().cells, plan().cells
    assert [cell.key for cell in first] == [cell.key for cell in second]
    assert len({cell.key for cell in first}) == 5


def test_anything_that_moves_a_number_makes_a_new_cell(plan, tmp_path, monkeypatch):
    def key(**changes):
        return plan(models=("esvae",), backends=("reference",), **changes).cells[0].key

    keys = {key(), key(seeds=(1,)), key(protocol=load_protocol("smoke", ["epochs=5"]))}
    keys.add(plan(models=("esvae",), backends=("snntorch",)).cells[0].key)
    keys.add(plan(models=("fsvae",), backends=("reference",)).cells[0].key)
    for pixel in (0, 1):
        keys.add(key(datasets=(f"own={array_file(tmp_path, pixel)}",)))
    monkeypatch.setattr(models.load("esvae"), "version", "2")
    keys.add(key())
    assert len(keys) == 8


def test_the_same_content_elsewhere_is_the_same_cell(plan, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    paths = array_file(tmp_path, 0), array_file(tmp_path / "elsewhere", 0)
    keys = [plan(datasets=(f"own={path}",)).cells[0].key for path in paths]
    assert keys[0] == keys[1]


def test_two_ways_to_say_the_same_are_one_cell(plan, tmp_path):
    def keys(*settings, path="smoke"):
        cells = plan(protocol=load_protocol(path, settings), backends=("fused",)).cells
        return {cell.model: (cell.key, cell.folder, cell.protocol_hash) for cell in cells}

    smoke = files("bench.protocols") / "smoke.toml"
    (tmp_path / "mine.toml").write_text(smoke.read_text())
    assert keys(path=tmp_path / "mine.toml") == keys("optimizer=adamw") == keys()
    assert keys("epochs=9", "batch_size=8") == keys("batch_size=8", "epochs=9") != keys()
    own = keys("models.ann_vae.kl_weight=per_batch")
    assert own["esvae"] == keys()["esvae"]
    assert own["ann_vae"] != keys()["ann_vae"]


def array_file(folder: Path, pixel):
    import numpy as np

    images = np.full((40, 8, 8), 255, np.uint8)
    images[0, 0, 0] = pixel
    path = folder / f"own{pixel}.npz"
    np.savez(path, train_images=images, test_images=images)
    return path


def test_folder_names_are_readable_unique_and_safe(plan):
    folders = [cell.folder for cell in plan(seeds=(0, 1)).cells]
    assert len(set(folders)) == 10
    assert folders[0].startswith("ann_vae-torch-digits-s0-")
    nasty = replace(plan().cells[0], model="../a b/<c>")
    assert not set(nasty.folder) & set("/\\<> ")
    assert not nasty.folder.startswith(".")


@pytest.mark.parametrize("pattern", ["npz:{}", "folder:{}", "own1={}"])
def test_an_override_for_a_dataset_named_after_its_path(plan, tmp_path, pattern):
    path = array_file(tmp_path, 1)
    if pattern.startswith("folder"):
        path = tmp_path / "own1"
        path.mkdir()
        for number in range(40):
            Image.new("L", (8, 8), 255 - number).save(path / f"{number}.png")
    override = {"datasets": ["own1"], "set": {"epochs": 2}}
    protocol = load_protocol("smoke").model_copy(update={"overrides": (Override(**override),)})
    cells = plan(models="ann_vae", datasets=(pattern.format(path),), protocol=protocol).cells
    assert [cell.resolved.epochs for cell in cells] == [2]


def test_a_range_is_part_of_the_cell(plan, tmp_path):
    path = array_file(tmp_path, 0)
    keys = {
        plan(models="ann_vae", datasets=(f"own={path}",), image_range=given).cells[0].key
        for given in (None, (0, 255), "0,300", (0, 400))
    }
    assert len(keys) == 3


@pytest.mark.parametrize("source", ["raise OSError('no licence')", "class X: pass"])
def test_a_backend_that_cannot_be_used_is_skipped_under_all_and_an_error_by_name(
    plan, plugins, source
):
    plugins("plugin_broken", source, backends={"broken": "plugin_broken:X"})
    skipped = {cell.backend: cell.skipped for cell in plan(models="esvae", backends="all").cells}
    assert "The backend 'broken' cannot be" in skipped.pop("broken")
    assert set(skipped.values()) == {None}
    with pytest.raises(BenchError, match="The backend 'broken' cannot be"):
        plan(models="esvae", backends="broken")
    assert plan(models="ann_vae", backends="broken").cells[0].skipped is None
