"""A plug-in dataset that breaks its contract is refused with the reason; others run."""

import pytest

import bench

HEADER = """
import numpy as np
import torch
from bench.datasets.dataset import Dataset, DatasetInfo, ImageData, Split
from bench.datasets.preprocessing import InMemoryDataset
from bench.errors import DataUnavailableError

x = (np.arange(80 * 64) % 256).reshape(80, 8, 8).astype(np.uint8)
y = np.arange(80) % 10
INFO = dict(shape=(1, 8, 8), train_size=80, test_size=80, source="a", licence="b",
            fingerprint="c" * 64, variant="complete")
"""
READ = """
class {name}(InMemoryDataset):
    name = "{registered}"; source = "drawn"; licence = "CC0"
    def missing(self): return None
    def fetch(self): pass
    def variant(self, train, test): return "complete"
    def read(self): {body}
"""
LOAD = """
class {name}(Dataset):
    name = "{registered}"; source = "drawn"; licence = "CC0"
    def missing(self): return None
    def fetch(self): pass
    def info(self): return DatasetInfo(self.name, **INFO)
    def load(self, protocol):
        a, b = x[:protocol.train_images, None], x[:protocol.test_images, None]
        a, b = (each.repeat(4, 2).repeat(4, 3) for each in (a, b))
        train, test = Split(a, y[:len(a)].astype(np.uint8)), Split(b, None)
        {body}
"""
GOOD = "Split(x, y)"
STORED = {
    "d_floats": (f"return Split(x / 255, y), {GOOD}", "(images * 255).round().astype('uint8')"),
    "d_signed": (f"return Split(x / 127.5 - 1, y), {GOOD}", "with ((images + 1) * 127.5).round()"),
    "d_ints": (f"return Split(x.astype(int), y), {GOOD}", "train images are a int64 ndarray; retu"),
    "d_flags": (f"return {GOOD}, Split(x > 9, y)", "the test images are a bool ndarray; return a"),
    "d_tensors": (
        f"return {GOOD}, Split(torch.tensor(x), y)",
        "the test images are a torch.uint8 T",
    ),
    "d_lists": (
        f"return Split(x.tolist(), y), {GOOD}",
        "the train images are a list; return a Num",
    ),
    "d_labels": (f"return Split(x, y.tolist()), {GOOD}", "the train labels are a list; return a N"),
    "d_column": (
        f"return Split(x, y[:, None]), {GOOD}",
        "the train labels have the shape (80, 1);",
    ),
    "d_short": (
        f"return Split(x, y[:9]), {GOOD}",
        "have the shape (9,); return a NumPy array of 80",
    ),
    "d_real": (
        f"return Split(x, y / 2), {GOOD}",
        "the train labels are a float64 ndarray; return a",
    ),
    "d_pairs": (
        "return (x, y), (x, y)",
        "the train split is a tuple; return a Split, as in Split(",
    ),
    "d_one": (f"return {GOOD}", "it returned a Split; return the train and the test Split"),
    "d_none": ("pass", "it returned a NoneType; return the train and the test Split"),
    "d_empty": (
        f"return Split(x[:0], y[:0]), {GOOD}",
        "shape (0, 8, 8); return at least one image",
    ),
    "d_flat": (
        f"return Split(x[:, 0], y), {GOOD}",
        "have the shape (80, 8); return (N, H, W), (N,",
    ),
    "d_first": (
        "s = Split(x[:, None].repeat(3, 1), y); return s, s",
        "have the shape (80, 3, 8, 8)",
    ),
    "d_sizes": (f"return Split(x[:, 1:], y), {GOOD}", "shape (7, 8) in train and (8, 8) in test"),
    "d_dark": (
        "s = Split(x // 16, y); return s, s",
        "the values lie in 0..15, which is nearly black",
    ),
    "d_raises": ("raise KeyError('gone')", "KeyError: 'gone'."),
    "d_gone": ("raise DataUnavailableError('The disk is full.')", "The disk is full."),
}
DESCRIBED = {
    "i_dict": (
        "def info(self): return INFO",
        "info of plugin_data.I_dict: it returned a dict; ret",
    ),
    "i_raises": (
        "def info(self): raise ValueError('odd')",
        "info of plugin_data.I_raises: ValueErr",
    ),
    "i_shape": ("INFO = {'shape': (8, 8)}", "shape is (8, 8); set it to (C, H, W) with C = 1 or 3"),
    "i_two": (
        "INFO = {'shape': (2, 8, 8)}",
        "shape is (2, 8, 8); set it to (C, H, W) with C = 1 or",
    ),
    "i_size": (
        "INFO = {'test_size': 0}",
        "test_size is 0; set it to the number of images, at least 1",
    ),
    "i_count": (
        "INFO = {'train_size': '80'}",
        "train_size is '80'; set it to the number of images",
    ),
    "i_print": (
        "INFO = {'fingerprint': None}",
        "fingerprint is None; set it to a string that is not",
    ),
    "i_variant": (
        "INFO = {'variant': 'whole'}",
        "variant is 'whole'; set it to one of complete, sub",
    ),
    "i_missing": (
        "def missing(self): return True",
        "missing of plugin_data.I_missing: it returned T",
    ),
    "i_fetch": (
        "def missing(self): return 'looked for it'\n    def fetch(self): raise OSError('no net')",
        "fetch of plugin_data.I_fetch: OSError: no net.",
    ),
    "i_init": (
        "def __init__(self, root): raise OSError('no')",
        "plugin_data:I_init): OSError: no.",
    ),
    "i_source": ("source = None", "the attribute source of I_source is None; set it to a string"),
    "i_name": ("name = 'other'", "its attribute name is 'other'; set it to 'i_name'"),
    "i_abstract": ("load = Dataset.load", "I_abstract is abstract: it lacks the methods load"),
}
DESCRIBE = """
class {name}(Good):
    name = "{registered}"
    def info(self): return DatasetInfo(self.name, **{{**INFO, **self.INFO}})
    INFO = {{}}
    {body}
"""
LOADED = {
    "l_good": ("return ImageData(train, test)", None),
    "l_view": ("train.images.flags.writeable = False; return ImageData(train, test)", None),
    "l_tuple": (
        "return train, test",
        "load of plugin_data.L_tuple: it returned a tuple; return Ima",
    ),
    "l_raises": ("raise RuntimeError('odd')", "load of plugin_data.L_raises: RuntimeError: odd."),
    "l_floats": (
        "return ImageData(Split(a / 255, None), test)",
        "the train images are a float64 nd",
    ),
    "l_small": (
        "return ImageData(train, Split(b[:, :, ::2], None))",
        "test images have the shape (24,",
    ),
    "l_all": (
        "return ImageData(Split(a[:9], None), test)",
        "return (64, 1, 32, 32), as the descript",
    ),
    "l_dark": (
        "return ImageData(Split(a // 9, None), Split(b // 9, None))",
        "values lie in 0..28, w",
    ),
}


@pytest.fixture
def install(plugins):
    def install(kind, cases, **others):
        good = LOAD.format(name="Good", registered="good", body=LOADED["l_good"][0])
        classes = [
            kind.format(name=name.capitalize(), registered=name, body=case[0])
            for name, case in cases.items()
        ]
        names = {name: f"plugin_data:{name.capitalize()}" for name in [*cases, *others]}
        source = HEADER + good + "".join([*classes, *others.values()])
        plugins("plugin_data", source, datasets=names)

    return install


@pytest.mark.parametrize("all_at_once", [False, True])
@pytest.mark.parametrize(("kind", "cases"), [(READ, STORED), (DESCRIBE, DESCRIBED)])
def test_a_dataset_that_breaks_its_contract_is_refused(
    install, bench_cli, tmp_path, kind, cases, all_at_once
):
    install(kind, cases)
    common = ["run", "--models", "ann_vae", "--set", "batch_size=8", "--dry-run"]
    common += ["--out", tmp_path / "run", "--data-root", tmp_path]
    if all_at_once:
        code, out, err = bench_cli(*common, "--datasets", "all")
        assert code == 0, err
        runnable = [line for line in out.splitlines() if "to do" in line]
        assert runnable
        assert all(" digits " in line for line in runnable)
        return
    for name, (_, words) in cases.items():
        if name == "i_fetch":
            continue  # A dry run downloads nothing.
        code, _, err = bench_cli(*common, "--datasets", f"digits,{name}")
        assert code == 2, name
        assert words in err, name
        assert "Traceback" not in err
        assert repr(name) in err or name == "d_gone"


def test_images_are_checked_when_they_are_loaded(install, tiny, tmp_path):
    install(LOAD, LOADED)
    asked = {"settings": tiny, "metrics": "psnr", "out": tmp_path / "run"}
    rows = bench.run("ann_vae", ",".join(LOADED), **asked)
    rows = rows[rows["status"] != "not_asked"]
    for name, (_, words) in LOADED.items():
        of_dataset = rows[rows["dataset"] == name]
        if words is None:
            assert set(of_dataset["status"]) <= {"ok", "not_applicable", "skipped"}
            continue
        assert set(of_dataset["status"]) == {"failed"}
        (reason,) = of_dataset["reason"].unique()
        assert words in reason


def test_a_dark_dataset_can_say_so(install, bench_cli, tmp_path):
    body = STORED["d_dark"][0] + "\n    dark = True"
    install(READ, {"d_dark": (body, None)})
    code, out, _ = bench_cli("data", "status", "--data-root", tmp_path)
    assert (code, "80 train, 80 test, 1x8x8" in out) == (0, True)


def test_datasets_that_cannot_be_used_are_listed_with_the_reason(install, bench_cli, tmp_path):
    install(DESCRIBE, DESCRIBED, gone="\nGone = 3\n")
    code, out, _ = bench_cli("data", "status", "--data-root", tmp_path)
    assert code == 0
    for name, (_, words) in DESCRIBED.items():
        assert name == "i_fetch" or words in out, name
    assert "3 is not a subclass of bench.datasets.dataset.Dataset" in out
    assert "1,437 train, 360 test" in out
    code, _, err = bench_cli("data", "fetch", "digits", "i_fetch", "gone", "--data-root", tmp_path)
    assert code == 2
    assert DESCRIBED["i_fetch"][1] in err
    assert "3 is not a subclass" in err
