"""What comes from disk, from the network or from a plug-in is data, and stays where it belongs."""

import io
import tarfile
import zipfile

import pytest
import torch
import torchvision
from tiny import TINY

import bench
from bench.datasets.torchvision import CIFAR10, FashionMNIST
from bench.report.page.write import write_html
from bench.system.checksums import SummedFolder
from bench.system.network import confidential

EVIL = "../../<script>alert(1)</script>"


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["weights-last.pt", "checkpoint.pt"])
def test_what_a_run_directory_holds_is_not_unpickled(name, tmp_path):
    out, mark = tmp_path / "run", tmp_path / "mark"
    asked = {"settings": TINY, "metrics": "psnr", "out": out}
    bench.run("ann_vae", **asked)
    (cell,) = out.glob("cells/ann_vae*")
    folder = SummedFolder(cell)
    folder.remove("rows.parquet")
    if name == "checkpoint.pt":
        folder.remove("training.json")
    else:  # as earlier versions wrote it
        folder.remove("weights-last.safetensors")
    with folder.write(name) as file:
        torch.save({"model": Bomb(mark)}, file)
    rows = bench.run("ann_vae", **asked)
    own = rows[rows["status"] != "not_asked"]
    assert set(own["status"]) == {"failed"}
    assert own["reason"].str.contains("[Ww]eights.only", regex=True).all()
    assert not mark.exists()


def test_a_plugin_cannot_name_its_way_out_of_folders_and_pages(plugins, tmp_path):
    plugins("plugin_named", "from toys import Steady", models={EVIL: "plugin_named:Steady"})
    outside = set(tmp_path.rglob("*"))
    out = tmp_path / "deep" / "run"
    rows = bench.run([EVIL], settings=TINY, metrics="fast", out=out)
    assert EVIL in set(rows["model"])
    written = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} - outside
    assert {path for path in written if out not in path.parents} == {out, out.parent}
    page = write_html(out).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_cannot_write_outside_its_folder(kind, tmp_path, monkeypatch):
    from torchvision.datasets.utils import calculate_md5, extract_archive

    folder = tmp_path / "root" / "deeper"
    folder.mkdir(parents=True)
    archive = folder / f"cifar-10-python.{'tar.gz' if kind == 'tar' else 'zip'}"
    if kind == "tar":
        with tarfile.open(archive, "w:gz") as file:
            member = tarfile.TarInfo("../../escaped")
            member.size = 3
            file.addfile(member, io.BytesIO(b"out"))
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", calculate_md5(archive))
        with pytest.raises(Exception, match="outside"):
            CIFAR10(folder).info()
    else:
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("../../escaped", b"out")
        extract_archive(archive, folder / "unpacked")
    assert [path for path in tmp_path.parent.rglob("escaped") if folder not in path.parents] == []


def test_datasets_come_over_https(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        torchvision.datasets.FashionMNIST,
        "download",
        lambda dataset: asked.extend(dataset.mirrors),
    )
    with pytest.raises(Exception, match="not found"):
        FashionMNIST(tmp_path).download(tmp_path / "staging")
    assert asked
    assert all(map(confidential, asked))
    assert confidential(torchvision.datasets.CIFAR10.url)


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        ("https://example.org/x", True),
        ("http://example.org/x", False),
        ("http://127.0.0.1:8000/x", True),
        ("http://localhost.example.org/x", False),
        ("ftp://example.org/x", False),
        ("file:///etc/passwd", False),
    ],
)
def test_what_counts_as_confidential(url, holds):
    assert confidential(url) is holds
