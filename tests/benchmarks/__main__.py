"""Runs the benchmarks and prints their table: ``python tests/benchmarks``."""

import comparison
import metrics
import pandas as pd

if __name__ == "__main__":
    modules = [metrics, comparison]
    rows = [row for module in modules for benchmark in module.BENCHMARKS for row in benchmark()]
    table = pd.DataFrame(rows, columns=["what", "unit", "value"])
    print(table.to_string(index=False, float_format="{:.4g}".format))
