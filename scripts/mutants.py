"""Change one thing in a module, run its tests, and see whether they notice: mutation testing, on a seeded sample.

    python scripts/mutants.py [--each 14] [--seed 0] [MODULE...]

cosmic-ray makes the changes (a number, an operator, a comparison, a loop, a decorator) in a copy of the repository. Of
each module it prints how many were tried and how many noticed, and each that was not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem

REPOSITORY = Path(__file__).resolve().parent.parent
TIMEOUT = 300.0
# Annotations are never evaluated, so a change within one, as of the | in `int | None`, does nothing.
IN_ANNOTATIONS = "core/ReplaceBinaryOperator_BitOr"
TESTS = {
    "scores/metrics": ["scores_sums", "scores_table"],
    "scores/specificity": ["scores_specificity"],
    "scores/ranking": ["scores_ranking"],
    "statistics/intervals": ["statistics_intervals"],
    "statistics/jackknife": ["statistics_intervals"],
    "statistics/permutation": ["statistics_permutation"],
    "statistics/tails": ["statistics_tails"],
    "statistics/score_test": ["statistics_score_test"],
    "scores/sums": ["scores_sums"],
    "scores/scoring": ["scores_scoring", "scores_table"],
    "training/normalization": ["training_normalization"],
    "data/tables": ["data_tables", "data_dialects"],
    "data/splits": ["data_splits", "data_tables"],
    "encoders/checkpoints": ["encoders_checkpoints"],
    "encoders/preprocessing": ["encoders_preprocessing"],
    "store/shuffle": ["store_shuffle"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)} (default: all)")
    parser.add_argument("--each", type=int, default=14, help="changes a module (default: 14)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    args = parser.parse_args()
    if unknown := set(args.modules) - TESTS.keys():
        parser.error(f"no tests are known of {', '.join(sorted(unknown))}")
    tried = survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        for module in args.modules or TESTS:
            n, lived = survivors(module, args.each, args.seed)
            tried, survived = tried + n, survived + len(lived)
            print(f"{module}: {n} tried, {n - len(lived)} noticed", flush=True)
            for diff in lived:
                print("\n".join(f"    {line}" for line in diff.splitlines()[2:]), flush=True)
    print(f"all: {tried} tried, {tried - survived} noticed, {survived} not ({survived / max(tried, 1):.1%})")


def copied(folder: Path) -> None:
    """Work in a copy of what git knows, so that nothing here is changed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in listed.stdout.rstrip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    os.environ.setdefault("MEDSAE_SHARED", str(REPOSITORY.parent / "shared"))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a change within a second of another would be taken for it
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(folder)


def survivors(module: str, each: int, seed: int) -> tuple[int, list[str]]:
    """How many changes were tried, and the diffs of those that no test noticed."""
    path = Path("medsae_plugin") / f"{module}.py"
    tests = " ".join(f"tests/test_{name}.py" for name in TESTS[module])
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {tests}"
    if run_tests(command, TIMEOUT)[0] != TestOutcome.SURVIVED:
        raise SystemExit(f"the tests of {module} fail as they are: {command}")
    changes = [item for item in all_changes(path) if not item.mutations[0].operator_name.startswith(IN_ANNOTATIONS)]
    lived = []
    sample = random.Random(f"{seed} {module}").sample(changes, min(each, len(changes)))
    for item in sample:
        result = mutate_and_test(item.mutations, command, TIMEOUT)
        if result.test_outcome == TestOutcome.SURVIVED:
            lived.append(result.diff or "")
    return len(sample), lived


def all_changes(path: Path) -> list[WorkItem]:
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "work.sqlite", WorkDB.Mode.create) as database:
        with contextlib.redirect_stderr(None):
            init([path], database, {})
        return sorted(database.work_items, key=lambda item: (item.mutations[0].start_pos, str(item.mutations)))


if __name__ == "__main__":
    main()
