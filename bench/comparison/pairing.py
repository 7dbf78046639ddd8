"""Which cells of a run answer which cells of the reference."""

from typing import Any

import pandas as pd

from bench.comparison.policy import ENOUGH_SEEDS

CELL = ["model", "backend", "dataset"]
SIDES = ("reference", "here")


def newest_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without those of cells that a newer one replaces.

    A run directory keeps the cells of older model versions and of other contents of a dataset
    beside the new ones. Of those with the same model, backend, dataset, protocol and seed the one
    written last stays.
    """
    named = [*CELL, "protocol_hash", "seed"]
    written = rows.groupby([*named, "cell_key"], dropna=False, sort=False)["created_at"].max()
    cells = _by_age(written.reset_index())
    kept = cells.drop_duplicates(named, keep="last")
    return rows[rows["cell_key"].isin(kept["cell_key"])]


def pair_cells(here: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """The groups of cells that differ by their seed alone, on both sides.

    Cells of one model, backend and dataset are paired by their protocol. Where the two sides have
    no protocol in common, the newest of each are paired, to be told as incomparable.

    Args:
        here: rows of the run, without replaced cells.
        reference: rows of the reference, alike.

    Returns:
        One row a pair: ``model``, ``backend``, ``dataset``, and for each side (``_reference``,
        ``_here``) ``protocol_hash``, ``protocol`` and ``seeds``, a tuple, empty where the side has
        no such cell. ``state`` is ``compared``, ``fewer seeds``, ``other protocol``,
        ``other seeds`` (none in common, and too few), ``missing`` or ``new``.
    """
    sides = {"reference": _groups(reference), "here": _groups(here)}
    names = dict.fromkeys(name for groups in sides.values() for name in groups)
    pairs: list[dict[str, Any]] = []
    for name in names:
        ours, theirs = sides["here"].get(name, {}), sides["reference"].get(name, {})
        for hash_reference, hash_here in _match(list(theirs), list(ours)):
            pair = dict(zip(CELL, name, strict=True))
            pair |= _side("reference", hash_reference, theirs) | _side("here", hash_here, ours)
            pairs.append({**pair, "state": _state(pair)})
    columns = [
        f"{fact}_{side}" for side in SIDES for fact in ("protocol_hash", "protocol", "seeds")
    ]
    return pd.DataFrame(pairs, columns=[*CELL, *columns, "state"])


def _by_age(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.sort_values("created_at", kind="stable", na_position="first")


def _groups(rows: pd.DataFrame) -> dict[Any, dict[str, tuple[str, tuple[int, ...]]]]:
    """Protocol name and seeds, by (model, backend, dataset) and protocol hash, oldest first."""
    facts = [*CELL, "protocol_hash", "protocol"]
    cells = rows.groupby([*facts, "seed"], dropna=False, sort=False)["created_at"].max()
    found: dict[Any, dict[str, tuple[str, tuple[int, ...]]]] = {}
    aged: Any = _by_age(cells.reset_index()).itertuples()
    for cell in aged:
        protocols = found.setdefault((cell.model, cell.backend, cell.dataset), {})
        name, seeds = protocols.pop(cell.protocol_hash, (cell.protocol, ()))
        protocols[cell.protocol_hash] = name, tuple(sorted({*seeds, cell.seed}))
    return found


def _match(reference: list[str], here: list[str]) -> list[tuple[str | None, str | None]]:
    """Pairs of protocol hashes; None where a side has no counterpart."""
    common = [known for known in reference if known in here]
    if reference and here and not common:
        pairs: list[tuple[str | None, str | None]] = [(reference.pop(), here.pop())]
    else:
        pairs = [(known, known) for known in common]
    pairs += [(known, None) for known in reference if known not in common]
    return pairs + [(None, known) for known in here if known not in common]


def _side(side: str, key: str | None, groups: dict[str, tuple[str, tuple[int, ...]]]) -> dict:
    name, seeds = groups[key] if key is not None else (None, ())
    return {f"protocol_hash_{side}": key, f"protocol_{side}": name, f"seeds_{side}": seeds}


def _state(pair: dict[str, Any]) -> str:
    if not pair["seeds_here"]:
        return "missing"
    if not pair["seeds_reference"]:
        return "new"
    if pair["protocol_hash_reference"] != pair["protocol_hash_here"]:
        return "other protocol"
    fewest = min(len(pair["seeds_here"]), len(pair["seeds_reference"]))
    if fewest < ENOUGH_SEEDS and not set(pair["seeds_here"]) & set(pair["seeds_reference"]):
        return "other seeds"
    return "compared" if len(pair["seeds_here"]) >= len(pair["seeds_reference"]) else "fewer seeds"
