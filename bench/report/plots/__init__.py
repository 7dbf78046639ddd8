"""The plots of a run, in the order of the report."""

from bench.report.plots.base import Plot
from bench.report.plots.energy import QualityAgainstEnergy
from bench.report.plots.images import LatentNoise, Reconstructions, Samples
from bench.report.plots.layers import FiringRateByLayer
from bench.report.plots.metrics import MetricByModel
from bench.report.plots.rasters import LatentRasters
from bench.report.plots.robustness import NoiseRobustness
from bench.report.plots.style import render
from bench.report.plots.timesteps import FiringRateByTimeStep, QualityByTimeStep
from bench.report.plots.training import TrainingCurves

__all__ = ["PLOTS", "Plot", "render"]

PLOTS: tuple[Plot, ...] = (
    MetricByModel(),
    QualityAgainstEnergy(),
    QualityByTimeStep(),
    NoiseRobustness(),
    FiringRateByLayer(),
    FiringRateByTimeStep(),
    TrainingCurves(),
    Reconstructions(),
    Samples(),
    LatentNoise(),
    LatentRasters(),
)
