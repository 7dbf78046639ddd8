"""Numbers printed in papers, each with its source, and the metrics that compute them here."""

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".csv"
# Units in which papers print numbers; most have none.
UNITS = {"": 1, "Mi": 2**20}


@dataclass(frozen=True)
class MetricMapping:
    """Our metrics for a published one.

    Attributes:
        metrics: metrics that compute the quantity as the papers' code does. Several are added up.
        done_right: metric that computes the quantity correctly; None if ``metrics`` do.
        split: split to read, for metrics that have several; None for any.
        extractor: text that the description of the papers' own extractor contains.
        same_quantity: False if the difference from the published value has no meaning.
    """

    metrics: tuple[str, ...]
    done_right: str | None = None
    split: str | None = None
    extractor: str = ""
    same_quantity: bool = True

    @property
    def name(self) -> str:
        """The names of the metrics."""
        return " + ".join(self.metrics)


_MACS = "synaptic_operations_effective_macs"
_ACS = "synaptic_operations_effective_acs"

# A MAC is a multiplication and an addition; an AC is an addition.
MAPPINGS = {
    "reconstruction_loss": MetricMapping(("reconstruction_loss_official",), "reconstruction_loss"),
    "inception_score": MetricMapping(("inception_score_official",), "inception_score"),
    "inception_score_tf": MetricMapping(("inception_score",)),
    "fid": MetricMapping(("fid_official",), "fid"),
    "fid_tf": MetricMapping(("fid",)),
    "fad": MetricMapping(("fad_official",), "fad", extractor="(published"),
    "additions": MetricMapping((_MACS, _ACS), split="test", same_quantity=False),
    "multiplications": MetricMapping((_MACS,), split="test", same_quantity=False),
    "parameters": MetricMapping(("parameter_count",)),
}


def published_tables() -> list[str]:
    """Return the names of the tables of published numbers."""
    names = [entry.name for entry in _folder().iterdir()]
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def published(name: str) -> "pd.DataFrame":
    """Read a table of published numbers.

    Returns:
        One row per number, with the columns ``dataset``, ``model``, ``model_family``, ``metric``,
        ``printed`` (the digits in the paper, with their unit), ``value`` (in the unit of our
        metric), ``images`` (number of images behind the value; missing if unknown), ``protocol``
        (built-in protocol that follows the number; empty if there is none), ``deviation`` (known
        difference of the suite from what gave the number), ``source`` and ``note``.

    Raises:
        UnknownNameError: no such table.
    """
    import pandas as pd

    if name not in published_tables():
        raise UnknownNameError("table", name, published_tables())
    with (_folder() / f"{name}{SUFFIX}").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table = table.rename(columns={"value": "printed"})
    value = table["printed"].map(printed_value)
    return table.assign(value=value, images=pd.to_numeric(table["images"]).astype("Int64"))


def printed_value(printed: str) -> float:
    """Return the value of a printed number, such as ``0.031`` or ``3.87 Mi``.

    Args:
        printed: digits, and one of ``UNITS`` behind a space if they have a unit.

    Raises:
        ValueError: ``printed`` has no number in front.
        KeyError: no such unit.

    >>> printed_value("1.5 Mi")
    1572864.0
    """
    digits, _, unit = printed.partition(" ")
    return float(digits) * UNITS[unit]


def _folder() -> Traversable:
    """Return the folder of the tables: package data, or in a checkout ``results/published``."""
    packaged = files("bench.report.papers") / "published"
    checkout = Path(__file__).parents[3] / "results" / "published"
    return packaged if packaged.is_dir() else checkout
