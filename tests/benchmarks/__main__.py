"""Runs the benchmarks and prints their table: ``python tests/benchmarks``."""

import comparison
import harness
import metrics
import pandas as pd
import report
import scheduling
import speed

MODULES = (speed, harness, scheduling, metrics, comparison, report)

if __name__ == "__main__":
    benchmarks = [benchmark for module in MODULES for benchmark in module.BENCHMARKS]
    rows = [row for benchmark in benchmarks for row in benchmark()]
    table = pd.DataFrame(rows, columns=["what", "unit", "value"])
    print(table.to_string(index=False, float_format="{:.4g}".format))
