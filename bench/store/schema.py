"""The vocabulary of a run: columns of a row, groups of columns, words, and names of files.

Everything that writes or reads a run takes these facts from here. This module imports nothing that
is slow to import, so that the command line can use it.
"""

from dataclasses import dataclass
from typing import Literal, get_args

# Columns

SCHEMA_VERSION = 2
OLDEST_READABLE = 1
COLUMNS: dict[str, type] = {
    "schema_version": int,
    "run_id": str,
    "cell_key": str,
    "model": str,
    "model_version": str,
    "backend": str,
    "dataset": str,
    "dataset_variant": str,
    "dataset_fingerprint": str,
    "train_images": int,
    "protocol": str,
    "protocol_hash": str,
    "seed": int,
    "epoch": int,
    "epoch_selection": str,
    "split": str,
    "metric": str,
    "metric_version": str,
    "value": float,
    "ci_low": float,
    "ci_high": float,
    "n": int,
    "layer": str,
    "time_step": int,
    "noise_kind": str,
    "noise_level": float,
    "extractor": str,
    "extractor_sha256": str,
    "status": str,
    "reason": str,
    "higher_is_better": bool,
    "unit": str,
    "duration_s": float,
    "device": str,
    "processor": str,
    "version": str,
    "git_commit": str,
    "created_at": str,
    "kind": str,
    "neuron_verdict": str,
}
"""Every column of a row, in order, with the type of its values. A value can be missing."""

# Groups of columns

CELL = ("model", "backend", "dataset")
"""The name of a cell in tables and plots."""

CELL_VARIATION = (
    "protocol",
    "protocol_hash",
    "model_version",
    "dataset_variant",
    "dataset_fingerprint",
    "train_images",
    "device",
)
"""Columns, other than the seed, in which cells of the same name can differ."""

PARTS = ("layer", "time_step", "noise_kind")
"""Columns that are all missing in a row about a whole model, over all time steps, without noise."""

PAIRED_BY = (
    *CELL,
    "metric",
    "split",
    "layer",
    "time_step",
    "noise_kind",
    "noise_level",
    "epoch_selection",
)
"""The name of an observation, over seeds: rows that agree in these are set side by side."""

COMPARABLE_BY = (
    "protocol",
    "dataset_variant",
    "dataset_fingerprint",
    "train_images",
    "n",
    "extractor",
    "extractor_sha256",
    "metric_version",
    "epoch_selection",
    "unit",
    "higher_is_better",
)
"""Columns that must agree for two rows of a dataset, metric and split to be comparable."""

COMPARABLE_WITHIN_MODEL = ("protocol_hash", "model_version")
"""Columns that must agree as well if the two rows are of one model.

Different models have unrelated versions, and one protocol can state other values for each model:
``protocol_hash`` is of the values for the row's model, and ``protocol`` names what models share.
"""

GATE_COMPARABLE_BY = (
    "protocol_hash",
    *(name for name in COMPARABLE_BY if name not in ("protocol", *PAIRED_BY)),
)
"""Columns that the gate checks in a pair of rows, which are of one model.

Protocols of different names can have the same values, so only the hash counts. The model's version
does not, because the gate judges what a change of a model moved.
"""

TIMED_UNIT = "images/s"
"""Unit of throughputs, whose ``n`` is the number of images timed.

The report does not compare this ``n``: a faster model times more images. The gate does, because a
cell and its reference time the same number.
"""

OBSERVATION = (
    "model",
    "model_version",
    "backend",
    "dataset",
    "dataset_fingerprint",
    "dataset_variant",
    "train_images",
    "protocol",
    "protocol_hash",
    "epoch_selection",
    "split",
    "metric",
    "metric_version",
    "layer",
    "time_step",
    "noise_kind",
    "noise_level",
    "extractor",
    "unit",
    "higher_is_better",
    "device",
    "kind",
)
"""Columns that identify an observation, all but its seed: rows that agree are averaged over seeds.

``n`` and ``extractor_sha256`` are not among them: an extractor that was trained again, or a seed
with other numbers of images, is averaged, and the report warns of it.
"""

HASHES = ("protocol_hash", "dataset_fingerprint", "extractor_sha256")
"""Columns of hashes, of which tables show the first digits."""

VOLATILE = ("run_id", "duration_s", "version", "git_commit", "created_at")
"""Columns that differ between two runs of the same cell although nothing changed."""

# Words

Status = Literal["ok", "failed", "skipped", "not_installed", "not_asked", "not_applicable"]
STATUSES: tuple[Status, ...] = get_args(Status)
OK, FAILED, SKIPPED, NOT_INSTALLED, NOT_ASKED, NOT_APPLICABLE = STATUSES
NO_VALUE = STATUSES[1:]
"""Statuses of rows without a value, the gravest first."""
STATUS_WORDS: dict[str, str] = {
    NOT_INSTALLED: "not installed",
    NOT_ASKED: "not asked",
    NOT_APPLICABLE: "n/a",
}
"""Statuses that tables abbreviate."""

SPLITS = ("train", "test", "generated")
TRAIN, TEST, GENERATED = SPLITS

Kind = Literal["model", "extractor", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MODEL, EXTRACTOR, DATASET = KINDS
REAL_IMAGES, PIXEL_NOISE = "real_images", "pixel_noise"
"""The ``model`` of a dataset's rows: distances of other real images and of noise, the scale."""
OLD_EXTRACTOR = "fad_autoencoder"
"""The ``model`` of an extractor's rows that were written before rows had a ``kind``."""

NO_BACKEND = "torch"
"""The ``backend`` of a cell without spiking neurons."""
EXTERNAL = "external"
"""Backend of images that were given, without a model."""

UNPUBLISHED = "unpublished."
"""What comes before the name of a network that no paper describes, in ``model_version``."""

NeuronVerdict = Literal["exact", "within_rounding", "another_neuron"]
NEURON_VERDICTS: tuple[NeuronVerdict, ...] = get_args(NeuronVerdict)
"""How the neurons of a backend compare with their equations, the best first."""
EXACT, WITHIN_ROUNDING, ANOTHER_NEURON = NEURON_VERDICTS

ELSEWHERE = "elsewhere"
"""The ``layer`` of a profile's row about the time that is spent outside of every layer."""

COMPLETE = "complete"
INCOMPLETE = {
    "subset": "a subset of the dataset",
    "substitute": "a local file or folder in the dataset's place",
}
"""What a ``dataset_variant`` other than ``complete`` means."""

# What metrics declare

Group = Literal["quality", "robustness", "spikes", "cost"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""Groups of metrics, in the order in which reports show them."""

Bounds = tuple[float | None, float | None]
"""Smallest and largest possible value; None if there is none."""
UNBOUNDED: Bounds = (None, None)
NOT_NEGATIVE: Bounds = (0.0, None)
SHARE: Bounds = (0.0, 1.0)

ENOUGH_SEEDS = 3
"""Least number of seeds on each side of a test over seeds."""

View = Literal[
    "summary",
    "report",
    "metric_by_model",
    "quality_against_energy",
    "quality_against_training_images",
]
VIEWS: tuple[View, ...] = get_args(View)
MAIN_VIEWS = VIEWS[:3]


@dataclass(frozen=True)
class Headline:
    """The place of a metric among the main numbers of a run, as the metric declares it.

    Attributes:
        rank: position, ascending. Built-in metrics have 10 to 110.
        label: heading of the metric's column.
        split: split that is shown; None for a metric without splits.
        views: where the metric is shown: ``summary`` is the table that closes ``bench run``,
            ``report`` the report's table of main metrics; the others are plots.
        short: heading in ``summary``, which is 80 columns wide; ``label`` if empty.
    """

    rank: int
    label: str
    split: str | None = None
    views: tuple[View, ...] = ("report", "metric_by_model")
    short: str = ""


# Files of a run directory

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
TABLE_FILE = "results.parquet"
CSV_FILE = "results.csv"
ACROSS_SEEDS_FILE = "across_seeds.csv"
CELLS = "cells"
CELL_LOCKS = ".locks"

# Files of a cell's folder

ROWS_FILE = "rows.parquet"
CELL_FILE = "cell.json"
TRAINING_FILE = "training.json"
CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "cell.log"
IMAGES_FILE = "images.npz"
SPIKES_FILE = "spikes.npz"
NEAREST_FILE = "nearest.npz"
EXTRACTOR_FILE = "extractor.safetensors"
IMAGES_FOLDER = "images"

# Files of a reference

VALUES_FILE = "values.csv"
EXTRACTORS_FOLDER = "extractors"


def weights_file(selection: str) -> str:
    """Return the name of the file with the weights of a selected epoch.

    >>> weights_file("last")
    'weights-last.safetensors'
    """
    return f"weights-{selection}.safetensors"


def old_weights_file(selection: str) -> str:
    """Return the name that this file had in earlier versions, in PyTorch's format.

    >>> old_weights_file("last")
    'weights-last.pt'
    """
    return f"weights-{selection}.pt"


def status_word(status: str) -> str:
    """Return a status as tables print it.

    >>> status_word("not_applicable"), status_word("failed")
    ('n/a', 'failed')
    """
    return STATUS_WORDS.get(status, status)
