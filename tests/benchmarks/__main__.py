"""Run benchmarks and print each result at once: ``python tests/benchmarks [PART ...]``."""

import argparse

import comparison
import gans
import harness
import metrics
import report
import scheduling
import speed
import spiking_diffusion

MODULES = (speed, gans, spiking_diffusion, harness, scheduling, metrics, comparison, report)
PARTS = {module.__name__: module for module in MODULES}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all by default"
    )
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for part in parts:
        for benchmark in PARTS[part].BENCHMARKS:
            for what, unit, value in benchmark():
                print(f"{value:>10,.4g} {unit:<8} {what}", flush=True)
