"""Where datasets live."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from bench.errors import BenchError

VARIABLE = "BENCH_DATA_ROOT"


def data_root(asked: str | Path | None) -> Path:
    """The data root: as asked, else from the environment, else the user's cache folder.

    Raises:
        BenchError: one was named that is missing, no folder, or unreadable.
    """
    named = asked or os.environ.get(VARIABLE)
    if not named:
        return user_cache_path("spikegen-bench") / "data"
    root = Path(named).expanduser()
    if not root.exists():
        raise BenchError(f"The data root {root} does not exist: create it with mkdir -p {root}")
    if not root.is_dir():
        raise BenchError(f"The data root {root} is not a directory.")
    if not os.access(root, os.R_OK | os.X_OK):
        raise BenchError(f"The data root {root} cannot be read: check its permissions.")
    return root
