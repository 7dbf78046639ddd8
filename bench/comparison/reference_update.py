"""Write references: run directories without weights and images, small enough for git."""

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

from bench.comparison.pairing import newest_cells
from bench.errors import BenchError
from bench.store.run_directory import SCHEMA, load_results
from bench.store.schema import (
    CELL,
    CELLS,
    EXTRACTORS_FOLDER,
    FAILED,
    OK,
    PAIRED_BY,
    RUN_FILE,
    TABLE_FILE,
    VALUES_FILE,
    VOLATILE,
)
from bench.store.trained_weights import stored_weights

# Columns of values.csv.
READ = ["model", "backend", "dataset", "protocol", "seed", "metric", "split", "noise_kind",
        "noise_level", "epoch_selection", "n", "value", "ci_low", "ci_high", "status"]  # fmt: skip


def update_reference(
    run: Path, reference: Path, allow_failed: bool = False, keep: bool = False
) -> list[Path]:
    """Write the rows of a run into a reference.

    A reference has ``run.json``, ``results.parquet`` and, to be read in a diff, ``values.csv``:
    values of whole models in six digits. Rows are sorted, and columns that differ between any two
    runs are empty. ``extractors/`` has the weights of the extractors that the run trained. Other
    files in the folder, such as a README, stay. The folder is replaced as a whole: an interrupted
    update leaves the old reference.

    Args:
        run: a run directory.
        reference: a reference, a folder with nothing but a README, or a path that does not exist.
        allow_failed: True to accept failed rows.
        keep: True to keep cells of the reference that ``run`` does not have, so that several runs
            can make one reference.

    Returns:
        The files written.

    Raises:
        BenchError: ``run`` is not a run directory, has no values, failed rows or damaged weights,
            or ``reference`` is another kind of folder or cannot be written.
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
    known = set(rows["extractor_sha256"].dropna())
    files = _weights(target, known) if keep else {}
    files |= _weights(run, known)
    try:
        written = _replace(target, rows, content, files)
    except OSError as error:
        raise BenchError(
            f"The reference {reference} cannot be written: {error.strerror}."
        ) from error
    return [reference / name for name in written]


def _replace(
    target: Path, rows: pd.DataFrame, content: Mapping[str, Any], weights: Mapping[str, bytes]
) -> list[str]:
    """Write a reference next to ``target`` and move it to its place; return the names of files."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new = staged / "new"
        if target.exists():
            shutil.copytree(target, new)
        new.mkdir(exist_ok=True)
        shutil.rmtree(new / EXTRACTORS_FOLDER, ignore_errors=True)
        written = _write(rows, content, new) + _write_weights(weights, new)
        _swap(new, target, staged / "old")
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return written


def _rows(run: Path, allow_failed: bool) -> pd.DataFrame:
    rows = newest_cells(load_results(run))
    if not (rows["status"] == OK).any():
        raise BenchError(f"{run} has no rows with a value: a reference needs values.")
    failed = rows[rows["status"] == FAILED]
    if not failed.empty and not allow_failed:
        row = failed.iloc[0]
        raise BenchError(
            f"{run} has {len(failed)} failed rows, the first is {row['metric']} of {row['model']} "
            f"on {row['dataset']} ({row['reason']}): fix the cause and run again, or accept them "
            "with --allow-failed."
        )
    rows[list(VOLATILE)] = None
    return rows


def _joined(rows: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """Return rows, and rows of ``before`` about other cells."""
    names = [*CELL, "protocol_hash", "seed"]
    replaced = pd.MultiIndex.from_frame(before[names]).isin(pd.MultiIndex.from_frame(rows[names]))
    return pd.concat([before[~replaced], rows])


def _check_target(run: Path, target: Path) -> None:
    if run.resolve() == target:
        raise BenchError(f"{run} cannot be its own reference: choose another folder.")
    if not target.exists():
        return
    if not target.is_dir():
        raise BenchError(f"The reference {target} is not a folder.")
    others = [path for path in target.iterdir() if not path.name.startswith("README")]
    if others and not (target / RUN_FILE).is_file():
        raise BenchError(
            f"The folder {target} contains {others[0].name} and is not a reference (it has no "
            f"{RUN_FILE}): choose another folder."
        )
    if (target / CELLS).exists():
        raise BenchError(
            f"{target} is a run directory with cells, weights and images: choose another folder "
            "for the reference."
        )


def _write(rows: pd.DataFrame, content: Mapping[str, Any], folder: Path) -> list[str]:
    order = [*PAIRED_BY, "protocol_hash", "seed", "cell_key"]
    rows = rows.sort_values(order, kind="stable", ignore_index=True)
    (folder / RUN_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    table = pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
    pq.write_table(table, folder / TABLE_FILE, compression="zstd")
    whole = rows[rows[["layer", "time_step"]].isna().all(axis=1)]
    whole[READ].to_csv(folder / VALUES_FILE, index=False, float_format="%.6g")
    return [RUN_FILE, TABLE_FILE, VALUES_FILE]


def _weights(run: Path, known: set[str]) -> dict[str, bytes]:
    """Return the content of the files of trained weights that rows name, by file name."""
    return {weights.file_name: path.read_bytes() for path, weights in stored_weights(run, known)}


def _write_weights(weights: Mapping[str, bytes], folder: Path) -> list[str]:
    names = [f"{EXTRACTORS_FOLDER}/{name}" for name in sorted(weights)]
    if names:
        (folder / EXTRACTORS_FOLDER).mkdir()
    for name in names:
        (folder / name).write_bytes(weights[Path(name).name])
    return names


def _swap(new: Path, target: Path, old: Path) -> None:
    """Move ``new`` to the place of ``target``; if that fails, move ``target`` back."""
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
