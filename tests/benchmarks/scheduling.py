"""Time and memory that the command needs to distribute cells to workers."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PATHS = [str(HERE), str(HERE.parent / "support")]
SIZES = (100, 1_000, 10_000)
EXECUTORS = {
    "two workers": "jobs=2",
    "Ray": "executor='ray'",
}
MODEL = "from toys import Steady"
RUN = """
import time

import bench
from bench import registry
from peak import own_peak
from tiny import TINY

if __name__ == "__main__":
    registry.metrics.names = lambda: ["parameter_count"]
    started = time.perf_counter()
    bench.run("trivial", settings=TINY, seeds=range({cells}), out={out!r}, {executor})
    print(time.perf_counter() - started, own_peak())
"""


def handing_out():
    """Yield the seconds and peak memory of the command for three numbers of trivial cells."""
    for name, executor in EXECUTORS.items():
        for cells in SIZES:
            seconds, memory = _run(executor, cells)
            yield f"{cells:,} trivial cells, {name}: time", "s", seconds
            yield f"{cells:,} trivial cells, {name}: peak memory of the command", "MiB", memory


def _run(executor, cells):
    with tempfile.TemporaryDirectory() as folder:
        site, script = Path(folder) / "site", Path(folder) / "script.py"
        _install(site)
        out = str(Path(folder) / "run")
        script.write_text(RUN.format(cells=cells, out=out, executor=executor))
        ran = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *PATHS])},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        seconds, memory = ran.stdout.split()[-2:]
        return float(seconds), float(memory)


def _install(site):
    metadata = site / "plugin_trivial-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "plugin_trivial.py").write_text(MODEL)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: plugin_trivial\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text("[bench.models]\ntrivial = plugin_trivial:Steady\n")


BENCHMARKS = (handing_out,)
