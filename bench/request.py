"""Requests: the arguments of ``bench.run``, ``score``, ``profile`` and of their commands."""

import math
import re
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError
from bench.protocol import Protocol, load_protocol, parse_settings
from bench.registry import DEFAULT_BACKEND
from bench.system.paths import data_root

if TYPE_CHECKING:
    from bench.system.progress import Reporter

ALL = "all"
LOCAL = "local"
EXECUTORS = (LOCAL, "ray")

Names = str | Iterable[str]


@dataclass(frozen=True)
class Request:
    """A request for some models on some datasets under a protocol.

    Attributes:
        models: registered names, as a list or separated by commas; ``"all"`` for every model.
        datasets: registered names, ``"NAME=PATH"``, ``"folder:PATH"`` or ``"npz:PATH"``, as a list
            or separated by commas; ``"all"`` for every registered dataset, of which those that are
            unavailable become ``skipped`` rows.
        backends: registered names of spiking backends, as a list or separated by commas; ``"all"``
            for every backend. Models without spiking neurons use none.
        protocol: built-in name, path of a TOML file, or a protocol.
        settings: values of the protocol to change, each as ``"key=value"``.
        data_root: folder where datasets are looked for and downloaded to; None for the folder in
            the environment variable ``BENCH_DATA_ROOT``, or else the user's cache.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        image_range: lowest and highest possible value of the pixels in datasets given by path,
            mapped to 0..255, as a pair or ``"LOW,HIGH"``; None for 0..255.
        reporter: receiver of the progress; ``"auto"`` for bars on standard error, or lines of text
            if that is neither a terminal nor a notebook; None for silence.
    """

    models: Names = ALL
    datasets: Names = "digits"
    backends: Names = DEFAULT_BACKEND
    protocol: str | Path | Protocol = "smoke"
    _: KW_ONLY
    settings: Iterable[str] = ()
    data_root: str | Path | None = None
    device: str = "auto"
    image_range: str | tuple[float, float] | None = None
    reporter: "Reporter | Literal['auto'] | None" = "auto"

    @cached_property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, as requested."""
        return _split(self.models)

    @cached_property
    def dataset_names(self) -> tuple[str, ...]:
        """Names and paths of the datasets, as requested."""
        return _split(self.datasets)

    @cached_property
    def backend_names(self) -> tuple[str, ...]:
        """Names of the backends, as requested."""
        return _split(self.backends)

    @cached_property
    def full_protocol(self) -> Protocol:
        """The protocol, with the settings applied."""
        settings = list(self.settings)
        if isinstance(self.protocol, Protocol):
            return self.protocol.customised(parse_settings(settings))
        return load_protocol(self.protocol, settings)

    @cached_property
    def value_range(self) -> tuple[float, float] | None:
        """Lowest and highest possible value of the pixels in datasets given by path.

        Raises:
            BenchError: if these are not two finite numbers, the lower one first.
        """
        return value_range(self.image_range)

    @cached_property
    def data_folder(self) -> Path:
        """The folder where datasets are looked for."""
        return data_root(self.data_root).absolute()


@dataclass(frozen=True, kw_only=True)
class RunRequest(Request):
    """A request to train and evaluate.

    Attributes:
        seeds: whole numbers from 0; None for the protocol's seeds.
        out: run directory, whose content is kept; None for ``runs/PROTOCOL``.
        weights: files of network weights that metrics need, each as ``"NAME=PATH"``.
        reference: reference, or another run directory, whose trained extractors are used instead
            of training them; a ``.npz`` file of reference statistics, as ``"PATH"`` or
            ``"EXTRACTOR=PATH"``, which Fréchet distances are taken to instead of to the reference
            images; or several of these.
        metrics: metrics to compute, as a list or separated by commas: names, patterns with ``*``
            and ``?``, or the presets ``"all"``, ``"fast"`` and ``"paper"``. Metrics that select
            epochs are computed after each epoch all the same.
        skip: metrics to leave out, given as ``metrics`` is.
        checkpoint_every: interval between two checkpoints of a training: ``"30s"``, ``"10min"``,
            ``"1h"``, ``"2epochs"`` or ``"never"``. An interruption saves a checkpoint as well.
        time_limit: time after which the run stops as by an interruption: ``"30s"``, ``"50min"`` or
            ``"1.5h"``, counted from the first cell; None for no limit.
        retry: ``"failed"`` to run only the cells that failed before.
        log: trackers that log the trainings, as a list of registered names or separated by commas.
        jobs: number of cells to run at a time, each in a process of its own, at least 1. The
            processes get the GPUs in turn. None for one per GPU, or as many as the usable CPUs
            have room for. A script with None or more than 1 needs
            ``if __name__ == "__main__":``.
        executor: ``"local"``, or ``"ray"`` for a Ray cluster.
        address: address of a running Ray cluster; None to start one on this machine.
        cpus_per_cell: CPUs per cell on the cluster, at least 1. None for as many as the protocol's
            ``threads``.
        gpus_per_cell: GPUs per cell on the cluster, at least 0; with a fraction, cells share a GPU.
            None for one GPU if the cluster has any.
    """

    seeds: Iterable[int] | None = None
    out: str | Path | None = None
    weights: Iterable[str] = ()
    reference: str | Path | Iterable[str | Path] | None = ()
    metrics: Names = ALL
    skip: Names = ""
    checkpoint_every: str = "10min"
    time_limit: str | None = None
    retry: str | None = None
    log: Names = ""
    jobs: int | None = 1
    executor: str = LOCAL
    address: str | None = None
    cpus_per_cell: int | None = None
    gpus_per_cell: float | None = None

    @cached_property
    def references(self) -> tuple[str, ...]:
        """References, run directories and files of reference statistics, as requested."""
        given = self.reference or ()
        return (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))

    @cached_property
    def metric_names(self) -> tuple[str, ...]:
        """Names, patterns and presets of the metrics to compute, as requested."""
        return _split(self.metrics)

    @cached_property
    def tracker_names(self) -> tuple[str, ...]:
        """Names of the trackers, as requested."""
        return _split(self.log)

    @cached_property
    def skipped_names(self) -> tuple[str, ...]:
        """Names, patterns and presets of the metrics to leave out, as requested."""
        return _split(self.skip)


@dataclass(frozen=True, kw_only=True)
class ProfileRequest(Request):
    """A request to measure speed. Models are built from the protocol's first seed.

    Attributes:
        batch_size: number of images per call; None for the protocol's batch size.
        repeats: number of timed calls of each kind, at least 1, after one to warm up.
    """

    batch_size: int | None = None
    repeats: int = 5


@dataclass(frozen=True)
class ScoreRequest:
    """A request to score images that exist, or a model whose weights exist.

    Attributes:
        images: generated images: an array or tensor ``(N, H, W)``, ``(N, H, W, C)`` or
            ``(N, C, H, W)``, or the path of a folder of image files or of a ``.npz``, ``.npy`` or
            ``.safetensors`` file; None for a model.
        dataset: dataset that they are compared with, as in :class:`Request`.
        name: name in the column ``model``; None for the name of the file or folder.
        protocol: built-in name, path of a TOML file, or a protocol.
        settings: values of the protocol to change, each as ``"key=value"``.
        reconstructions: reconstructions of all test images, in their order, given as ``images`` is;
            None if there are none.
        image_range: lowest and highest possible value of the images, as a pair or ``"LOW,HIGH"``;
            None for integers in 0..255.
        seed: seed of the random draws of metrics.
        out: run directory, whose content is kept; None for ``runs/PROTOCOL``.
        data_root: folder where datasets are looked for and downloaded to.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        weights: path of the model's weights (safetensors); files of network weights that metrics
            need, each as ``"NAME=PATH"``.
        model: registered name of the model that has the weights; None for images.
        backend: its spiking backend; a model without spiking neurons uses none.
        reference: trained extractors and reference statistics, as in :class:`RunRequest`.
        metrics: metrics to compute, as in :class:`RunRequest`.
        skip: metrics to leave out.
        reporter: receiver of the progress; ``"auto"`` for bars on standard error, or lines of text
            if that is neither a terminal nor a notebook; None for silence.
    """

    images: Any = None
    dataset: str = "digits"
    name: str | None = None
    protocol: str | Path | Protocol = "smoke"
    _: KW_ONLY
    settings: Iterable[str] = ()
    reconstructions: Any = None
    image_range: str | tuple[float, float] | None = None
    seed: int = 0
    out: str | Path | None = None
    data_root: str | Path | None = None
    device: str = "auto"
    weights: str | Path | Iterable[str | Path] = ()
    model: str | None = None
    backend: str = DEFAULT_BACKEND
    reference: str | Path | Iterable[str | Path] | None = ()
    metrics: Names = ALL
    skip: Names = ""
    reporter: "Reporter | Literal['auto'] | None" = "auto"

    @cached_property
    def base(self) -> RunRequest:
        """The request without what is scored: what it has in common with a run."""
        return RunRequest(
            models=() if self.model is None else [self.model],
            datasets=[self.dataset],
            backends=() if self.model is None else [self.backend],
            protocol=self.protocol,
            settings=self.settings,
            data_root=self.data_root,
            device=self.device,
            seeds=[self.seed],
            out=self.out,
            weights=[str(item) for item in self._weights if item not in self._model_weights],
            reference=self.reference,
            metrics=self.metrics,
            skip=self.skip,
            reporter=self.reporter,
        )

    @property
    def range_of_images(self) -> tuple[float, float] | None:
        """Lowest and highest possible value of the images.

        Raises:
            BenchError: if these are not two finite numbers, the lower one first.
        """
        return value_range(self.image_range)

    @property
    def _weights(self) -> tuple[str | Path, ...]:
        given = self.weights
        return (given,) if isinstance(given, str | Path) else tuple(given)

    @property
    def _model_weights(self) -> list[str | Path]:
        """The items of ``weights`` that are not ``"NAME=PATH"``, if there is a model."""
        if self.model is None:
            return []
        return [item for item in self._weights if "=" not in str(item) or Path(item).is_file()]

    @property
    def weights_path(self) -> Path:
        """Path of the model's weights.

        Raises:
            BenchError: there is none, or more than one; or images are given as well.
        """
        if self.images is not None or self.reconstructions is not None:
            raise BenchError("Give either images or a model with its weights, not both.")
        if self.image_range is not None:
            raise BenchError("A range is for images, and a model with its weights is given.")
        if len(self._model_weights) != 1:
            raise BenchError(
                f"The model {self.model} needs one file of weights: --weights FILE, in the format "
                f"safetensors; got {len(self._model_weights)}."
            )
        return Path(self._model_weights[0]).expanduser()

    @property
    def checked_name(self) -> str:
        """Name in the column ``model``.

        Raises:
            BenchError: there is none, or it has other characters than letters, digits, ``_.+-``.
        """
        scored = self.images if self.model is None else self.weights_path
        is_path = isinstance(scored, str | Path)
        name = self.name or (Path(scored).expanduser().resolve().stem if is_path else None)
        if name is None:
            raise BenchError("Images in memory need a name: score(images, name=...).")
        if not re.fullmatch(r"[\w.+-]+", name):
            raise BenchError(
                f"Name {name!r}: expected letters, digits, '_', '.', '+' or '-'; give it with "
                "--name (in Python name=...)."
            )
        return name


@dataclass(frozen=True)
class StatisticsRequest:
    """A request for reference statistics: mean and covariance of an extractor's features.

    Attributes:
        images: name of a dataset, ``"NAME=PATH"``, ``"folder:PATH"`` or ``"npz:PATH"``, whose
            images the protocol prepares; or the path of a folder or file of images, as in
            :class:`ScoreRequest`, which are used as they are.
        extractor: registered name of the extractor.
        out: ``.npz`` file to write, which does not exist yet.
        split: ``"train"``, ``"test"`` or ``"validation"``; None for the split that metrics of the
            extractor compare with, and for a folder or file.
        protocol: built-in name, path of a TOML file, or a protocol.
        settings: values of the protocol to change, each as ``"key=value"``.
        data_root: folder where datasets are looked for and downloaded to.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        weights: files of network weights, each as ``"NAME=PATH"``.
        image_range: lowest and highest possible value of the pixels of a folder or file.
        reporter: receiver of the progress; None to report none.
    """

    images: str
    _: KW_ONLY
    extractor: str
    out: str | Path
    split: str | None = None
    protocol: str | Path | Protocol = "standard"
    settings: Iterable[str] = ()
    data_root: str | Path | None = None
    device: str = "auto"
    weights: Iterable[str] = ()
    image_range: str | tuple[float, float] | None = None
    reporter: "Reporter | None" = None

    @cached_property
    def base(self) -> RunRequest:
        """The request without extractor and output: what it has in common with a run."""
        return RunRequest(
            models=(),
            datasets=[self.images],
            backends=(),
            protocol=self.protocol,
            settings=self.settings,
            data_root=self.data_root,
            device=self.device,
            weights=self.weights,
            image_range=self.image_range,
            reporter=self.reporter,
        )


def value_range(given: str | tuple[float, float] | None) -> tuple[float, float] | None:
    """Return a range of values as two numbers; None for none.

    Args:
        given: a pair, or ``"LOW,HIGH"``.

    Raises:
        BenchError: if these are not two finite numbers, the lower one first.

    >>> value_range("0,1")
    (0.0, 1.0)
    """
    if given is None:
        return None
    try:
        low, high = map(float, given.split(",") if isinstance(given, str) else given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise BenchError(
            f"Range {given!r}: expected two numbers LOW,HIGH, the lower one first, for example 0,1."
        )
    return low, high


def _split(names: Names) -> tuple[str, ...]:
    listed = names.split(",") if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) for name in listed):
        raise BenchError(f"Expected names, got {listed!r}.")
    return tuple(name.strip() for name in listed if name.strip())
