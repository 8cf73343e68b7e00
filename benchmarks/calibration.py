"""Whether the package's tests hold their rates: each row simulates a null, or a known effect, and counts.

    python benchmarks/calibration.py --quick                    # about a minute
    nice python benchmarks/calibration.py --chexpert train.csv  # the whole, in the background

`--chexpert`: CheXpert's `train.csv` (or `.csv.gz`), of which some rows take their labels; without it they are skipped.
Rates stand with twice their Monte Carlo error and the number of replications.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time
from pathlib import Path

from calibration_simulated import Row, Settings

MODULES = ("calibration_pvalues", "calibration_intervals", "calibration_folds", "calibration_confounders")


def rows() -> list[Row]:
    """Those of every module that is there."""
    there = [name for name in MODULES if importlib.util.find_spec(name)]
    return [row for name in there for row in importlib.import_module(name).ROWS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few replications")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chexpert", type=Path, help="CheXpert's train.csv")
    parser.add_argument("--only", default="", help="rows with this text in their name")
    args = parser.parse_args()
    settings = Settings(args.quick, args.seed, args.chexpert)
    print(f"seed {args.seed}, {'quick' if args.quick else 'whole'}\n")
    print("| what | nominal | before | found |\n| --- | --- | --- | --- |")
    start = time.perf_counter()
    for row in rows():
        if args.only in row.what:
            print(f"| {row.what} | {row.nominal} | {row.before} | {row.find(settings)} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
