"""Downloading through torchvision: bounded in time, verified, and all or nothing."""

import contextlib
import io
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.datasets.dataset import Dataset
from bench.errors import DataUnavailableError
from bench.system.network import NETWORK_TIMEOUT_SECONDS, network_timeout


class TorchvisionDataset(Dataset):
    """A dataset that torchvision downloads; its files lie under the root as torchvision has them.

    Only ``fetch`` writes the dataset's files: loading unpacks archives in a temporary folder, so
    that a root that cannot be written will do.

    Attributes:
        torchvision_name: torchvision's class of this dataset.
        by_hand: the files to place under the root where ``fetch`` cannot, for people.
    """

    torchvision_name: str
    by_hand: str

    @abstractmethod
    def downloads(self) -> list[tuple[str, str]]:
        """Each file that torchvision downloads: its path under the root, and its MD5."""

    def torchvision(self) -> Any:
        """Torchvision's class of this dataset."""
        from torchvision import datasets

        return getattr(datasets, self.torchvision_name)

    def download(self, folder: Path) -> None:
        """Let torchvision download what is not in ``folder`` yet, and unpack it."""
        self.torchvision()(folder, download=True)

    def fetch(self) -> None:
        """Download what is missing, or verify what is here; never replaces a corrupt file.

        Raises:
            DataUnavailableError: a file that is here is corrupt, the network or torchvision fails,
                or the root cannot be written.
        """
        if self.missing() is None:
            self.info()
            return
        try:
            with _staging_folder(self.root) as staging:
                self._copy_verified(staging)
                timeout = network_timeout(NETWORK_TIMEOUT_SECONDS)
                with contextlib.redirect_stdout(io.StringIO()), timeout:
                    self.download(staging)
                _publish(staging, self.root)
        except DataUnavailableError:
            raise
        except Exception as error:  # urllib, tarfile, zipfile and gdown each raise their own
            why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise DataUnavailableError(
                f"The dataset {self.name!r} cannot be downloaded: {why}. Try again, or place "
                f"{self.by_hand} under {self.root} by hand."
            ) from error

    def verify(self, path: Path, md5: str) -> None:
        """Check a file that is here.

        Raises:
            DataUnavailableError: it is missing, or its MD5 is another one.
        """
        from torchvision.datasets.utils import check_integrity

        if not check_integrity(path, md5):
            raise self.damaged(path, f"its MD5 is not {md5}")

    def damaged(self, path: Path, why: str) -> DataUnavailableError:
        """The error that names a damaged file, and the way out."""
        return DataUnavailableError(
            f"{path} is corrupt or truncated ({why}): delete it and fetch {self.name!r} again."
        )

    def _copy_verified(self, folder: Path) -> None:
        for file, md5 in self.downloads():
            if (self.root / file).exists():
                self.verify(self.root / file, md5)
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.root / file, folder / file)


@contextlib.contextmanager
def _staging_folder(root: Path) -> Iterator[Path]:
    """A folder inside the root, gone in the end: an interrupted download leaves nothing."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=root, prefix=".fetch-")
    except OSError as error:
        raise DataUnavailableError(
            f"The data root {root} cannot be written ({error.strerror}): give one that can."
        ) from error
    with staging as folder:
        yield Path(folder)


def _publish(staging: Path, root: Path) -> None:
    for path in [path for path in staging.rglob("*") if path.is_file()]:
        target = root / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
