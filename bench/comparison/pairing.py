"""Pair the cells of a run with the cells of a reference."""

from typing import Any

import pandas as pd

from bench.store.schema import CELL, ENOUGH_SEEDS

SIDES = ("reference", "here")
# Protocols of a side, by hash: the name, and the seeds that ran under it.
Protocols = dict[str, tuple[str, tuple[int, ...]]]


def newest_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows without the rows of cells that a newer cell replaces.

    A run directory keeps cells of older model versions and of other dataset contents. Of several
    cells with the same model, backend, dataset, protocol and seed, the one written last is kept.

    >>> old = {"model": "fsvae", "backend": "fused", "dataset": "mnist", "protocol_hash": "a"}
    >>> rows = pd.DataFrame([
    ...     old | {"seed": 0, "cell_key": "x", "created_at": "2026-01-01"},
    ...     old | {"seed": 0, "cell_key": "y", "created_at": "2026-02-01"},
    ... ])
    >>> newest_cells(rows)["cell_key"].tolist()
    ['y']
    """
    named = [*CELL, "protocol_hash", "seed"]
    written = rows.groupby([*named, "cell_key"], dropna=False, sort=False)["created_at"].max()
    cells = _by_age(written.reset_index())
    kept = cells.drop_duplicates(named, keep="last")
    return rows[rows["cell_key"].isin(kept["cell_key"])]


def pair_cells(here: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Pair groups of cells that differ only by their seed.

    Cells of one model, backend and dataset are paired by their protocol. If the two sides have no
    protocol in common, the newest protocols are paired and reported as incomparable.

    Args:
        here: rows of the run, without replaced cells.
        reference: rows of the reference, without replaced cells.

    Returns:
        One row per pair: ``model``, ``backend``, ``dataset``, and for each side (``_reference``,
        ``_here``) ``protocol_hash``, ``protocol`` and ``seeds``, a tuple that is empty if the side
        has no such cell. ``state`` is ``compared``, ``fewer seeds``, ``other protocol``,
        ``other seeds`` (too few, and none in common), ``missing`` or ``new``.
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


def _groups(rows: pd.DataFrame) -> dict[Any, Protocols]:
    """Return the protocols of each (model, backend, dataset), oldest first."""
    facts = [*CELL, "protocol_hash", "protocol"]
    cells = rows.groupby([*facts, "seed"], dropna=False, sort=False)["created_at"].max()
    groups: dict[Any, Protocols] = {}
    aged: Any = _by_age(cells.reset_index()).itertuples()
    for cell in aged:
        protocols = groups.setdefault((cell.model, cell.backend, cell.dataset), {})
        name, seeds = protocols.pop(cell.protocol_hash, (cell.protocol, ()))
        protocols[cell.protocol_hash] = name, tuple(sorted({*seeds, cell.seed}))
    return groups


def _match(reference: list[str], here: list[str]) -> list[tuple[str | None, str | None]]:
    """Return pairs of protocol hashes, with None if a side has no counterpart."""
    common = [known for known in reference if known in here]
    if reference and here and not common:
        pairs: list[tuple[str | None, str | None]] = [(reference.pop(), here.pop())]
    else:
        pairs = [(known, known) for known in common]
    pairs += [(known, None) for known in reference if known not in common]
    return pairs + [(None, known) for known in here if known not in common]


def _side(side: str, key: str | None, protocols: Protocols) -> dict:
    name, seeds = protocols[key] if key is not None else (None, ())
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
