"""References: small run directories without weights or images, fit for version control."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.comparison.compare import OBSERVATION
from bench.comparison.pairing import CELL, newest_cells
from bench.errors import BenchError
from bench.store.run_directory import RUN_FILE, SCHEMA, TABLE, load_results

# These differ between two runs that measure the same; run.json tells them for the run as a whole.
VALUES_FILE = "values.csv"
READ = ["model", "backend", "dataset", "protocol", "seed", "metric", "split", "noise_kind",
        "noise_level", "epoch_selection", "n", "value", "ci_low", "ci_high", "status"]  # fmt: skip
VOLATILE = ("run_id", "duration_s", "version", "git_commit", "created_at")


def update_reference(
    run: Path, reference: Path, allow_failed: bool = False, keep: bool = False
) -> list[Path]:
    """Make ``reference`` say what ``run`` says.

    It gets ``run.json``, ``results.parquet`` and, to be read in a diff, ``values.csv``, which has
    the values of whole models, all time steps, in six digits. Rows are sorted and lack what differs
    from run to run without being measured. Other files that stand in the folder, such as a README,
    stay. The folder is replaced as a whole: who interrupts this keeps the old one.

    Args:
        run: a run directory.
        reference: a folder that is a reference, has nothing but a README, or does not exist.
        allow_failed: whether failed rows may become part of the reference.
        keep: whether the reference's cells that ``run`` lacks stay: one that is made in several
            runs, on several machines, say.

    Returns:
        The files written.

    Raises:
        BenchError: ``run`` is no run directory, has no values or has failed rows, or ``reference``
            is another kind of folder or cannot be written.
    """
    rows = _rows(run, allow_failed)
    content = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    target = reference.resolve()
    _check_target(run, target)
    if keep and (target / RUN_FILE).exists():
        rows = _joined(rows, load_results(target))
        before = json.loads((target / RUN_FILE).read_text(encoding="utf-8"))
        commands = before["commands"]
        content["commands"] = commands + [c for c in content["commands"] if c not in commands]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BenchError(
            f"The reference {reference} cannot be written: {error.strerror}."
        ) from error
    try:
        new = staged / "new"
        if target.exists():
            shutil.copytree(target, new)
        new.mkdir(exist_ok=True)
        written = _write(rows, content, new)
        _swap(new, target, staged / "old")
    except OSError as error:
        raise BenchError(
            f"The reference {reference} cannot be written: {error.strerror}."
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [reference / name for name in written]


def _rows(run: Path, allow_failed: bool) -> pd.DataFrame:
    rows = newest_cells(load_results(run))
    if not (rows["status"] == "ok").any():
        raise BenchError(f"{run} has no rows with a value: nothing that could be a reference.")
    failed = rows[rows["status"] == "failed"]
    if not failed.empty and not allow_failed:
        row = failed.iloc[0]
        raise BenchError(
            f"{run} has {len(failed)} failed rows, the first {row['metric']} of {row['model']} on "
            f"{row['dataset']} ({row['reason']}): mend and run again, or take them into the "
            "reference with --allow-failed."
        )
    rows[list(VOLATILE)] = None
    return rows


def _joined(rows: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """Rows, and those of cells that they lack."""
    names = [*CELL, "protocol_hash", "seed"]
    replaced = pd.MultiIndex.from_frame(before[names]).isin(pd.MultiIndex.from_frame(rows[names]))
    return pd.concat([before[~replaced], rows])


def _check_target(run: Path, target: Path) -> None:
    if run.resolve() == target:
        raise BenchError(f"{run} cannot be its own reference: name another folder.")
    if not target.exists():
        return
    if not target.is_dir():
        raise BenchError(f"The reference {target} is not a folder.")
    others = [path for path in target.iterdir() if not path.name.startswith("README")]
    if others and not (target / RUN_FILE).is_file():
        raise BenchError(
            f"The folder {target} has {others[0].name} and is not a reference (it has no "
            f"{RUN_FILE}): it is left alone. Name another."
        )
    if (target / "cells").exists():
        raise BenchError(
            f"{target} is a run directory with cells, weights and images: it is left alone. Name "
            "another folder for the reference."
        )


def _write(rows: pd.DataFrame, content: Mapping[str, Any], folder: Path) -> list[str]:
    order = [*OBSERVATION, "protocol_hash", "seed", "cell_key"]
    rows = rows.sort_values(order, kind="stable", ignore_index=True)
    (folder / RUN_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    table = pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
    pq.write_table(table, folder / f"{TABLE}.parquet", compression="zstd")
    whole = rows[rows[["layer", "time_step"]].isna().all(axis=1)]
    whole[READ].to_csv(folder / VALUES_FILE, index=False, float_format="%.6g")
    return [RUN_FILE, f"{TABLE}.parquet", VALUES_FILE]


def _swap(new: Path, target: Path, old: Path) -> None:
    """Put ``new`` in the place of ``target``; where that fails ``target`` is put back."""
    new.chmod(0o755)
    had = target.exists()
    if had:
        os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        if had:
            os.rename(old, target)
        raise
