"""References of a run: trained extractors and statistics that it need not compute itself."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench import registry
from bench.errors import BenchError, UnknownNameError
from bench.metrics.extractors.extractor import TrainedExtractor
from bench.metrics.extractors.reference_statistics import SUFFIX, read_statistics
from bench.store.trained_weights import reference_weights
from bench.system.files import file_sha256
from bench.system.paths import StatisticsFile, TrainedFile


def references(
    given: Iterable[str],
) -> tuple[Mapping[str, TrainedFile], Mapping[str, StatisticsFile]]:
    """Return the weights of trained extractors, and the reference statistics by extractor.

    Args:
        given: paths of references or run directories, at most one; and of files of reference
            statistics, each as ``"PATH"`` or ``"EXTRACTOR=PATH"``.

    Raises:
        BenchError: a path cannot be used, or two would be used for the same.
    """
    trained: Mapping[str, TrainedFile] | None = None
    statistics: dict[str, StatisticsFile] = {}
    for item in given:
        if not item.endswith(SUFFIX):
            if trained is not None:
                raise BenchError("Two references: give one run directory with trained extractors.")
            trained = reference_weights(Path(item))
            continue
        name, file = _statistics(item)
        if name in statistics:
            raise BenchError(f"Two files of reference statistics for {name}.")
        statistics[name] = file
    return trained or {}, statistics


def checked_extractor(name: str) -> str:
    """Return the name of an extractor whose statistics can be kept in a file.

    Raises:
        BenchError: there is no such extractor, or it is trained on each dataset.
    """
    if name not in registry.extractors:
        raise UnknownNameError("extractor", name, registry.extractors.names())
    if issubclass(registry.extractors.load(name), TrainedExtractor):
        raise BenchError(
            f"The extractor {name} is trained on each dataset, so statistics of its features hold "
            "for one training only: give the run or reference that trained it with --reference DIR."
        )
    return name


def _statistics(item: str) -> tuple[str, StatisticsFile]:
    """Return the extractor and the file of ``"PATH"`` or ``"EXTRACTOR=PATH"``."""
    named, separator, rest = item.partition("=")
    is_named = bool(separator) and not Path(item).expanduser().is_file()
    path = Path(rest if is_named else item).expanduser().absolute()
    made = read_statistics(path).provenance
    if is_named and made and made.extractor != named:
        raise BenchError(f"{path} has statistics of {made.extractor}, not of {named}.")
    if not is_named and made is None:
        raise BenchError(
            f"{path} does not say which extractor made it: give it as EXTRACTOR={path.name}, for "
            "example inception_torch_fidelity for pytorch-fid's preprocessing or inception_clean "
            "for clean-fid's; bench ls extractors lists all."
        )
    name = checked_extractor(named if is_named or made is None else made.extractor)
    return name, StatisticsFile(path, file_sha256(path))
