"""Verified, atomic downloads through torchvision, with a timeout."""

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
from bench.system.network import (
    NETWORK_TIMEOUT_SECONDS,
    OFFLINE_REASON,
    network_timeout,
    offline,
)


class TorchvisionDataset(Dataset):
    """Base class of datasets that torchvision downloads, with torchvision's layout under the root.

    Only ``fetch`` writes the dataset's files. Loading unpacks archives into a temporary folder, so
    a read-only root is sufficient.

    Attributes:
        torchvision_name: name of torchvision's class for this dataset.
        by_hand: files that the user can place under the root if the download fails, as text.
    """

    torchvision_name: str
    by_hand: str

    @abstractmethod
    def downloads(self) -> list[tuple[str, str]]:
        """Return the path under the root and the MD5 of each file that torchvision downloads."""

    def torchvision(self) -> Any:
        """Import torchvision's class for this dataset."""
        from torchvision import datasets

        return getattr(datasets, self.torchvision_name)

    def download(self, folder: Path) -> None:
        """Let torchvision download the files that ``folder`` lacks, and unpack them."""
        self.torchvision()(folder, download=True)

    def fetch(self) -> None:
        """Download the dataset if it is missing, else verify it; never replace a corrupt file.

        Raises:
            DataUnavailableError: if an existing file is corrupt, downloads are forbidden, the
                download fails, or the root cannot be written.
        """
        if self.missing() is None:
            self.info()
            return
        if offline():
            raise self._unavailable(OFFLINE_REASON)
        try:
            with _staging_folder(self.root) as staging:
                self._copy_verified(staging)
                timeout = network_timeout(NETWORK_TIMEOUT_SECONDS)
                with contextlib.redirect_stdout(io.StringIO()), timeout:
                    self.download(staging)
                _publish(staging, self.root)
        except DataUnavailableError:
            raise
        except Exception as error:  # urllib, tarfile, zipfile and gdown raise different types
            why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise self._unavailable(why) from error

    def verify(self, path: Path, md5: str) -> None:
        """Check the MD5 of a file.

        Raises:
            DataUnavailableError: if the file is missing or has another MD5.
        """
        from torchvision.datasets.utils import check_integrity

        if not check_integrity(path, md5):
            raise self.damaged(path, f"or not of {self.name}: its MD5 is not {md5}")

    def damaged(self, path: Path, why: str) -> DataUnavailableError:
        """Return an error about a damaged file, which says what to do.

        Args:
            path: path of the damaged file.
            why: description of the damage, put in parentheses.
        """
        return DataUnavailableError(
            f"{path} is corrupt or truncated ({why}): delete it and fetch {self.name!r} again."
        )

    def _unavailable(self, why: str) -> DataUnavailableError:
        return DataUnavailableError(
            f"The dataset {self.name!r} cannot be downloaded: {why}. Try again, or place "
            f"{self.by_hand} under {self.root} yourself."
        )

    def _copy_verified(self, folder: Path) -> None:
        for file, md5 in self.downloads():
            if (self.root / file).exists():
                self.verify(self.root / file, md5)
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.root / file, folder / file)


@contextlib.contextmanager
def _staging_folder(root: Path) -> Iterator[Path]:
    """Create a temporary folder inside the root, deleted when the block ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=root, prefix=".fetch-")
    except OSError as error:
        raise DataUnavailableError(
            f"The data root {root} cannot be written ({error.strerror}): choose a writable one."
        ) from error
    with staging as folder:
        yield Path(folder)


def _publish(staging: Path, root: Path) -> None:
    for path in [path for path in staging.rglob("*") if path.is_file()]:
        target = root / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
