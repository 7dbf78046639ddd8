"""Runs the benchmarks and prints their table: ``python tests/benchmarks``."""

import metrics
import pandas as pd

if __name__ == "__main__":
    rows = [row for benchmark in metrics.BENCHMARKS for row in benchmark()]
    table = pd.DataFrame(rows, columns=["what", "unit", "value"])
    print(table.to_string(index=False, float_format="{:.4g}".format))
