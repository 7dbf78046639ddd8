"""Numbers printed in papers, each with its source, and which of our metrics answer them."""

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".csv"


@dataclass(frozen=True)
class Answer:
    """Our side of a published metric.

    Attributes:
        metrics: the metrics that compute it as the papers' code does; several are added up.
        done_right: the metric that computes the same quantity as it should be, None if
            ``metrics`` does.
        split: the split that it is read from where a metric has several, None for any.
        extractor: what the description of our extractor must hold to be the papers' own.
        same_quantity: whether a difference from the published value means anything.
    """

    metrics: tuple[str, ...]
    done_right: str | None = None
    split: str | None = None
    extractor: str = ""
    same_quantity: bool = True

    @property
    def name(self) -> str:
        """The metrics in words."""
        return " + ".join(self.metrics)


_MACS = "synaptic_operations_effective_macs"
_ACS = "synaptic_operations_effective_acs"

# A MAC is a multiplication and an addition, an AC an addition.
ANSWERS = {
    "reconstruction_loss": Answer(("reconstruction_loss_official",), "reconstruction_loss"),
    "inception_score": Answer(("inception_score_official",), "inception_score"),
    "fid": Answer(("fid_official",), "fid"),
    "fad": Answer(("fad_official",), "fad", extractor="(published"),
    "additions": Answer((_MACS, _ACS), split="test", same_quantity=False),
    "multiplications": Answer((_MACS,), split="test", same_quantity=False),
}


def published_tables() -> list[str]:
    """Names of the tables of published numbers that come with the suite."""
    names = [entry.name for entry in _folder().iterdir()]
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def published(name: str) -> "pd.DataFrame":
    """A table of published numbers, one a row.

    Returns:
        Columns ``dataset``, ``model``, ``model_family``, ``metric`` and ``printed`` (the value as
        it stands in the paper) with ``value``; ``images`` (behind the value, missing where
        unknown); ``protocol`` (the built-in one made after the paper, empty for numbers quoted
        from elsewhere); ``deviation`` (how that protocol is known to differ); ``source``, ``note``.

    Raises:
        UnknownNameError: no such table.
    """
    import pandas as pd

    if name not in published_tables():
        raise UnknownNameError("table", name, published_tables())
    with (_folder() / f"{name}{SUFFIX}").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table = table.rename(columns={"value": "printed"})
    value = table["printed"].astype(float)
    return table.assign(value=value, images=pd.to_numeric(table["images"]).astype("Int64"))


def _folder() -> Traversable:
    """Package data of a wheel; in a checkout the folder that they are copied from."""
    packaged = files("bench.report.papers") / "published"
    checkout = Path(__file__).parents[3] / "results" / "published"
    return packaged if packaged.is_dir() else checkout
