"""What metrics declare for the gate, as the run directory carries it."""

import json
from pathlib import Path
from typing import Any

from bench.comparison.policy import Gauge
from bench.errors import BenchError, one_line
from bench.store.run_directory import RUN_FILE


def declared(run: Path) -> dict[str, Gauge]:
    """What the metrics of a run declared, by name; of the last command that names them.

    Args:
        run: a run directory. One of an earlier release declares nothing.

    Raises:
        BenchError: what it says of its metrics cannot be read.
    """
    commands = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["commands"]
    found: dict[str, Any] = {}
    try:
        for command in commands:
            found |= command.get("metrics", {})
        return {name: Gauge(**facts) for name, facts in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BenchError(
            f"What {run / RUN_FILE} says of its metrics cannot be read ({one_line(error)}): "
            "compare with another run."
        ) from error
