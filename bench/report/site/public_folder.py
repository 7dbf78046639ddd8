"""The folder of a site: written as a whole, and replaced only if it is a site."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.errors import BenchError
from bench.report.site.leaderboard_json import KIND

INDEX, DATA, MODELS = "index.html", "leaderboard.json", "models"
_ANOTHER = "choose another folder with --out"


def check_folder(out: Path) -> None:
    """Check that a folder can become a site: it is missing, empty, or a site already.

    Raises:
        BenchError: it has other contents, which would be lost.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise BenchError(f"{out} is not a folder: {_ANOTHER}.")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    if not _is_site(out):
        raise BenchError(
            f"{out} is not empty, and not a site that bench site wrote (it has no {DATA} of one): "
            f"{_ANOTHER}."
        )
    others = sorted(names - {INDEX, DATA, MODELS})
    if others:
        raise BenchError(
            f"{out} has files that bench site did not write, which would be lost "
            f"({', '.join(others[:3])}): move them, or {_ANOTHER}."
        )


def write_folder(files: Mapping[str, bytes], out: Path) -> None:
    """Write the files of a site next to its folder, and then put them in its place.

    Args:
        files: contents by path in the folder.
        out: the folder, which :func:`check_folder` accepts.

    Raises:
        BenchError: the folder cannot be written, or has other contents.
    """
    check_folder(out)
    # A link to a folder stays a link.
    target = out.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            new, old = Path(folder) / "new", Path(folder) / "old"
            for name, content in files.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if target.exists():
                os.replace(target, old)
            try:
                os.replace(new, target)
            except BaseException:
                if old.exists():
                    os.replace(old, target)
                raise
    except OSError as error:
        raise BenchError(
            f"{out} cannot be written: {error.strerror}. {_ANOTHER[0].upper()}{_ANOTHER[1:]}."
        ) from error


def _is_site(folder: Path) -> bool:
    try:
        known = json.loads((folder / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and known.get("kind") == KIND
