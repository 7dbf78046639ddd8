"""Protocols: every choice that moves a number, validated and hashed."""

import codecs
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from bench.errors import BenchError, UnknownNameError


def _ascending(levels: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(set(levels)))


Positive = Annotated[int, Field(ge=1)]
Precision = Literal["float32", "tf32", "bfloat16"]
NoiseLevels = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], ...],
    Field(min_length=1),
    AfterValidator(_ascending),
]
# Suffixes of files that can be meant as protocols.
OTHER_FORMATS = {".yaml", ".yml", ".json", ".ini", ".cfg"}
# The fields that move no number of a cell.
UNHASHED = frozenset({"name", "description", "seeds", "paper_models"})
BEST_TEST_LOSS = "best_test_loss"
# What the name of a paper's protocol ends in for a model that the paper does not train by it.
OTHER_MODEL = "+other_model"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SurrogateWindow(_Frozen):
    """A rectangular surrogate gradient ``(1 / width) * [|u - centre| < width / 2]``.

    Attributes:
        centre: membrane potential at the centre of the window.
        width: width of the window; its height is ``1 / width``.
    """

    centre: float
    width: Annotated[float, Field(gt=0)]


class ArctangentSurrogate(_Frozen):
    """The surrogate gradient ``(alpha / 2) / (1 + (pi / 2 * alpha * (u - threshold))^2)``.

    Attributes:
        alpha: steepness; twice the gradient at the threshold.
    """

    alpha: Annotated[float, Field(gt=0)]


class TestBatching(_Frozen):
    """Batches of the test set whose means a paper's official code averages.

    Attributes:
        size: images per batch.
        drop_last: True to leave out an incomplete last batch, False to weigh it like a full one.
    """

    size: Positive
    drop_last: bool


class Override(_Frozen):
    """Values that replace the protocol's own for some models and datasets.

    Attributes:
        models: names of the models; empty for all.
        datasets: names of the datasets; empty for all.
        set: new values by field.
    """

    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    set: dict[str, Any]

    def applies(self, model: str, dataset: str) -> bool:
        """Return True if the override covers this model on this dataset."""
        return (not self.models or model in self.models) and (
            not self.datasets or dataset in self.datasets
        )


class Protocol(_Frozen):
    """The settings by which cells are trained and scored, see docs/protocols.md for each.

    Values for some models or datasets only are ``overrides``, which :meth:`resolve` applies in
    order. Options of one model, such as its ablations, are in ``models``; the model checks them.
    """

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    paper_models: tuple[str, ...] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)] = (0,)

    # images
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    center_crop: Positive | None = None
    interpolation: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = "bilinear"
    horizontal_flip: Literal["never", "train", "train_and_test"] = "never"
    train_images: Positive | None = None
    test_images: Positive | None = None

    # spiking neurons
    time_steps: Positive
    membrane_decay: Annotated[float, Field(gt=0, le=1)] = 0.25
    threshold: Annotated[float, Field(gt=0)] = 0.2
    surrogate: Literal["paper", "official_code"] | SurrogateWindow | ArctangentSurrogate = (
        "official_code"
    )
    reset_gradient: bool = True
    fires_at_threshold: bool = False

    # training and evaluation of the model
    precision: Precision = "float32"
    threads: Positive = 1

    # training
    latent_size: Positive
    epochs: Positive
    batch_size: Positive
    drop_last: bool = False
    learning_rate: Annotated[float, Field(gt=0)]
    learning_rate_batch_size: Positive | None = None
    optimizer: Literal["adam", "adamw", "rmsprop"] = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epoch_selection: Literal["last", "best_test_loss", "best_per_metric"] = "last"
    scored_every: Positive = 1
    scored_images: Positive | None = None

    # evaluation
    evaluation_batch_size: Positive = 250
    generated_images: Positive = 5000
    official_test_batching: TestBatching | None = None
    official_fid_split: Literal["test", "validation"] | None = None
    official_fad_batch_size: Annotated[int, Field(ge=2)] = 128
    official_inception_split_size: Positive = 256
    reference_split: Literal["test", "train"] = "test"
    latent_images: Positive = 5000
    noise_images: Positive = 1000
    noise_levels: NoiseLevels = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
    time_step_images: Positive = 1000
    kid_subsets: Positive = 100
    kid_subset_size: Annotated[int, Field(ge=2)] = 1000
    inception_minimum_images: Positive = 2000
    inception_score_splits: Positive = 10
    neighbours: Positive = 5
    autoencoder_epochs: Positive = 150
    autoencoder_batch_size: Annotated[int, Field(ge=2)] = 250

    models: dict[str, dict[str, Any]] = {}
    overrides: tuple[Override, ...] = ()

    @model_validator(mode="after")
    def _overrides_are_valid(self) -> Self:
        for override in self.overrides:
            structural = (UNHASHED | {"overrides"}) & override.set.keys()
            if structural:
                raise ValueError(f"an override cannot set {', '.join(sorted(structural))}")
            self._with(override.set)
        return self

    @property
    def effective_learning_rate(self) -> float:
        """Learning rate of the optimiser, scaled by ``batch_size / learning_rate_batch_size``."""
        if self.learning_rate_batch_size is None:
            return self.learning_rate
        return self.learning_rate * self.batch_size / self.learning_rate_batch_size

    @property
    def surrogate_gradient(self) -> SurrogateWindow | ArctangentSurrogate:
        """The surrogate gradient, also where the protocol only names it.

        ``paper``: centred on the threshold, width 0.2 (arXiv:2110.00375 and the first
        author's page). ``official_code``: centred on 0, width 1.
        """
        if isinstance(self.surrogate, SurrogateWindow | ArctangentSurrogate):
            return self.surrogate
        if self.surrogate == "paper":
            return SurrogateWindow(centre=self.threshold, width=0.2)
        return SurrogateWindow(centre=0.0, width=1.0)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the model that this protocol was resolved for."""
        return next(iter(self.models.values()), {})

    @property
    def hash(self) -> str:
        """SHA-256 of the values that move a number, as 64 hex digits.

        A cell has the hash of its resolved protocol, see :meth:`resolve`. Values at their default
        are left out, so that a field added later changes no hash where it has its default.
        """
        return self.hash_of(type(self).model_fields.keys() - UNHASHED)

    @property
    def other_split(self) -> Literal["test", "train"]:
        """The split that is not the reference."""
        return "train" if self.reference_split == "test" else "test"

    def name_for(self, model: str) -> str:
        """Return the name in the rows of a model, which tells if its paper does not train it so.

        >>> esvae_paper = load_protocol("esvae_paper")
        >>> esvae_paper.name_for("esvae"), esvae_paper.name_for("mine")
        ('esvae_paper', 'esvae_paper+other_model')
        """
        published = not self.paper_models or model in self.paper_models
        return self.name if published else f"{self.name}{OTHER_MODEL}"

    def hash_of(self, fields: Iterable[str]) -> str:
        """Return the SHA-256 of some fields, those at their default left out, as 64 hex digits."""
        values = self.model_dump(mode="json", include=set(fields), exclude_defaults=True)
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def resolve(self, model: str, dataset: str) -> Self:
        """Return the protocol as it holds for one model on one dataset, without overrides.

        Only the options of that model are left. Two protocols that resolve to the same values have
        the same :attr:`hash`, however they state them.
        """
        resolved = self.model_copy(update={"overrides": ()})
        for override in self.overrides:
            if override.applies(model, dataset):
                resolved = resolved._with(override.set)
        options = resolved.models.get(model)
        return resolved.model_copy(update={"models": {model: options} if options else {}})

    def customised(self, values: Mapping[str, Any]) -> Self:
        """Return this protocol with ``values`` set for every model and dataset.

        The name lists the values, sorted by their keys and without the seeds, which are no part of
        the hash either: ``smoke+batch_size=8+epochs=3``.

        Raises:
            BenchError: An unknown field, or a value out of range.
        """
        if not values:
            return self
        changes = {key: values[key] for key in sorted(values) if key != "seeds"}
        data = self.model_dump(exclude_unset=True)
        data["name"] = "+".join([self.name, *(f"{k}={v}" for k, v in changes.items())])
        data["seeds"] = values.get("seeds", self.seeds)
        data["overrides"] = [*data.get("overrides", ()), {"set": _nested(changes)}]
        return self._validated(data, f"protocol {self.name!r} with --set")

    @classmethod
    def _validated(cls, data: Mapping[str, Any], source: str) -> Self:
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise BenchError(f"{source}: {describe(error)}") from error

    def _with(self, values: Mapping[str, Any]) -> Self:
        data = self.model_dump(exclude={"overrides"})
        options = data["models"]
        data.update(values)
        if "models" in values:
            data["models"] = _merged(options, values["models"])
        return self.model_validate(data)


def builtin_protocols() -> list[str]:
    """Return the names of the protocols that come with the suite."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files("bench.protocols").iterdir()
        if entry.name.endswith(".toml")
    )


def load_protocol(name_or_path: str | Path, settings: Iterable[str] = ()) -> Protocol:
    """Return a built-in protocol or one from a TOML file, with ``key=value`` settings applied.

    Args:
        name_or_path: built-in name, or path that ends in ``.toml``.
        settings: values to change, as for :func:`parse_settings`.

    Raises:
        UnknownNameError: Neither a built-in name nor a TOML file's.
        BenchError: The file cannot be read, is not TOML, or holds a value that is not allowed.
    """
    text, source = _read(name_or_path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BenchError(f"{source} is not valid TOML: {error}") from error
    data.setdefault("name", Path(name_or_path).stem)
    return Protocol._validated(data, source).customised(parse_settings(settings))


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse ``key=value`` settings: a value is TOML where it parses, else a string.

    >>> parse_settings(["epochs=3", "surrogate=paper"])
    {'epochs': 3, 'surrogate': 'paper'}

    Raises:
        BenchError: A setting without ``=`` or key.
    """
    values = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key.strip():
            raise BenchError(f"--set {setting!r}: expected key=value, for example epochs=3.")
        values[key.strip()] = _value(value.strip())
    return values


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _read(name_or_path: str | Path) -> tuple[str, str]:
    if str(name_or_path) in builtin_protocols():
        text = (files("bench.protocols") / f"{name_or_path}.toml").read_text(encoding="utf-8")
        return text, f"protocol {name_or_path!r}"
    path = Path(name_or_path)
    if path.suffix.lower() != ".toml":
        if path.suffix.lower() in OTHER_FORMATS or path.is_file():
            raise BenchError(
                f"Protocol file {path}: expected a TOML file, whose name ends in .toml; write the "
                "settings as in docs/protocols.md, for example epochs = 3."
            )
        raise UnknownNameError("protocol", str(name_or_path), builtin_protocols())
    try:
        return path.read_text(encoding=_encoding(path)), f"protocol file {path}"
    except (OSError, UnicodeError) as error:
        raise BenchError(f"Protocol file {path} cannot be read: {error}") from error


def _encoding(path: Path) -> str:
    """Return the encoding of a text file: UTF-8, or UTF-16 if it begins with its mark."""
    with path.open("rb") as file:
        start = file.read(len(codecs.BOM_UTF16_LE))
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def describe(error: ValidationError) -> str:
    """Return a pydantic error as one line: each field, the value given and what was expected."""
    return "; ".join(_describe_one(dict(item)) for item in error.errors())


def _describe_one(item: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        try:
            raise UnknownNameError("setting", field, Protocol.model_fields)
        except UnknownNameError as unknown:
            return str(unknown).rstrip(".")
    message = item["msg"].removeprefix("Value error, ").replace("\n", " ")
    given = "" if item["type"] in {"missing", "value_error"} else f" (got {item['input']!r})"
    return f"{field}: {message}{given}" if field else message


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"models.fsvae.k": 5}`` as ``{"models": {"fsvae": {"k": 5}}}``."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise BenchError(f"--set {key}: {parent!r} is set to a value already.")
        place[last] = value
    return nested


def _merged(base: Mapping[str, Mapping[str, Any]], extra: Any) -> Any:
    """Return options by model, with ``extra`` on top; pydantic refuses malformed ones later."""
    if not isinstance(extra, Mapping) or not all(isinstance(o, Mapping) for o in extra.values()):
        return extra
    return {name: {**base.get(name, {}), **extra.get(name, {})} for name in {*base, *extra}}
