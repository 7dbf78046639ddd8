"""The plots of a run, in the order of the report."""

from bench.report.plots.by_time_step import FiringRateByTimeStep, QualityByTimeStep
from bench.report.plots.firing_rate_by_layer import FiringRateByLayer
from bench.report.plots.image_grids import LatentNoise, Reconstructions, Samples
from bench.report.plots.latent_rasters import LatentRasters
from bench.report.plots.metric_by_model import MetricByModel
from bench.report.plots.noise_robustness import NoiseRobustness
from bench.report.plots.plot import Plot
from bench.report.plots.quality_against_energy import QualityAgainstEnergy
from bench.report.plots.style import render
from bench.report.plots.training_curves import TrainingCurves

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
