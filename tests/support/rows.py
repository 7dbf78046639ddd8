"""What of a run's rows must be the same whenever it is run."""

OBSERVATION_COLUMNS = [
    "cell_key", "metric", "epoch_selection", "split", "layer", "time_step", "noise_kind",
    "noise_level",
]  # fmt: skip
MACHINE_COLUMNS = ["run_id", "duration_s", "created_at"]
MACHINE_METRICS = ["training_throughput", "sampling_throughput", "peak_memory"]


def reproducible(rows):
    rows = rows[~rows["metric"].isin(MACHINE_METRICS)].drop(columns=MACHINE_COLUMNS)
    return rows.sort_values(OBSERVATION_COLUMNS, ignore_index=True)
