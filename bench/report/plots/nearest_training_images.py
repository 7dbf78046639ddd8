"""Samples above the training images that are nearest to them."""

from pathlib import Path

from bench.report.plots.image_grids import ImageGrid, ShownCell, Tiles
from bench.report.run_reader import Arrays, Run
from bench.store.schema import NEAREST_FILE


class NearestTrainingImages(ImageGrid):
    """Every model's samples, their nearest training images, and the distances between them."""

    title = "Samples and the nearest training images"
    caption = (
        "The first images that each model and backend samples, without selection, and below each "
        "the nearest training image in the feature space of the extractor that the row names. The "
        "number between the two is their distance there; compare it within one extractor only. If "
        "there are several seeds, the lowest is shown."
    )
    order = 95
    file = NEAREST_FILE
    no_file = (
        "only cells with a value of a metric of memorisation, such as autoencoder_authenticity, "
        "write it; run the same command again with such a metric"
    )

    def read(self, run: Run, folder: Path) -> Arrays | None:
        """Return the cell's samples and nearest training images."""
        return run.nearest(folder)

    def tiles(self, block: list[ShownCell]) -> Tiles:
        """Yield two rows per model and backend: samples with distances, and training images."""
        for number, shown in enumerate(block):
            extractor = str(shown.arrays["extractor"])
            near = f"nearest training image ({extractor.replace('_', ' ')})"
            for column, distance in enumerate(shown.arrays["distances"]):
                at = {"index_in_array": column, "column": column, "heading": ""}
                facts = {"extractor": extractor, "distance": float(distance)}
                sample = {"array": "samples", "row": 2 * number, "row_name": ""}
                yield shown, {**at, **facts, **sample, "text": f"{distance:#.3g}"}
                below = {"array": "nearest", "row": 2 * number + 1, "row_name": near}
                yield shown, {**at, **facts, **below}
