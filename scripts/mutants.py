"""Change one thing in a module, run its tests, and see whether they notice: mutation testing, on a seeded sample.

    python scripts/mutants.py [--each 14] [--seed 0] [MODULE...]
    python scripts/mutants.py --again mutants.txt     # what a run printed as not noticed, once more

cosmic-ray makes the changes (a number, an operator, a comparison, a loop, a decorator) in a copy of the repository. Of
each module it prints how many were tried and how many noticed, and each that was not, as an operator of cosmic-ray's,
its place and a diff. Those that no test can notice stand in `mutants_equal.tsv`, each with the reason that is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import difflib
import importlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import Phase

try:
    from cosmic_ray.commands import init
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import MutationSpec
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing: `make mutants` installs it, or pip install 'cosmic-ray>=8.4'") from None

REPOSITORY = Path(__file__).resolve().parent.parent
EQUAL = Path(__file__).with_name("mutants_equal.tsv")
TIMEOUT = 120  # seconds of CPU, whatever else runs; a change that makes the tests take longer counts as noticed
# Annotations are never evaluated, so a change within one, as of the | in `int | None`, does nothing.
IN_ANNOTATIONS = "core/ReplaceBinaryOperator_BitOr"
# Loaded once: every run of the tests is a fork of this process.
LIBRARIES = ["torch", "scipy.stats", "pandas", "sklearn.metrics", "statsmodels.stats.multitest", "sae_lens", "beartype"]
TESTS = {
    "statistics/correlation": ["statistics_permutation", "statistics_score_test"],
    "statistics/intervals": ["statistics_intervals"],
    "statistics/jackknife": ["statistics_intervals"],
    "statistics/bootstrap": ["statistics_intervals"],
    "statistics/permutation": ["statistics_permutation"],
    "statistics/tails": ["statistics_tails"],
    "statistics/multiple": ["statistics_tails"],
    "statistics/score_test": ["statistics_score_test"],
    "scores/metrics": ["scores_sums", "scores_table"],
    "scores/specificity": ["scores_specificity"],
    "scores/ranking": ["scores_ranking"],
    "scores/sums": ["scores_sums"],
    "scores/scoring": ["scores_scoring", "scores_table"],
    "training/normalization": ["training_normalization"],
    "data/tables": ["data_tables", "data_table_files", "data_rows", "data_dialects", "data_data_sets"],
    "data/table_parts": ["data_tables", "data_dialects", "data_data_sets"],
    "data/splits": ["data_splits", "data_tables"],
    "encoders/checkpoints": ["encoders_checkpoints"],
    "encoders/preprocessing": ["encoders_preprocessing", "encoders_framing"],
    "store/shuffle": ["store_shuffle"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)} (default: all)")
    parser.add_argument("--each", type=int, default=14, help="changes a module (default: 14)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--again", type=Path, help="what an earlier run printed: try those that it did not notice")
    args = parser.parse_args()
    if unknown := set(args.modules) - TESTS.keys():
        parser.error(f"no tests are known of {', '.join(sorted(unknown))}")
    wanted = printed_in(args.again.read_text("utf-8")) if args.again else None
    tried = equal = survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copied(Path(folder))
        for module in args.modules or wanted or TESTS:
            changes = all_changes(module)
            if wanted is not None:
                sample = [changes[name] for name in wanted.get(module, [])]
            else:
                sample = random.Random(f"{args.seed} {module}").sample(
                    [*changes.values()], min(args.each, len(changes))
                )
            same, lived = survivors(module, sample)
            tried, equal, survived = tried + len(sample), equal + same, survived + lived
            print(
                f"{module}: {len(sample)} tried, {len(sample) - same - lived} noticed, {same} equal in effect",
                flush=True,
            )
    share = survived / max(tried - equal, 1)
    print(f"all: {tried} tried, {equal} equal in effect; of the others {survived} not noticed ({share:.1%})")


def printed_in(text: str) -> dict[str, list[str]]:
    """The changes by module, as `survivors` prints them."""
    found: dict[str, list[str]] = {}
    for module, name in re.findall(r"^  not noticed: (\S+) (\S+)$", text, re.MULTILINE):
        found.setdefault(module, []).append(name)
    return found


def copied(folder: Path) -> None:
    """Work in a copy of what git knows, so that nothing here is changed, with all loaded that is slow to load."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in listed.stdout.rstrip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    os.environ.setdefault("MEDSAE_SHARED", str(REPOSITORY.parent / "shared"))
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for library in LIBRARIES:
        importlib.import_module(library)


def all_changes(module: str) -> dict[str, MutationSpec]:
    """Every change of the module, by name."""
    path = Path("medsae_plugin") / f"{module}.py"
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "work.sqlite", WorkDB.Mode.create) as database:
        with contextlib.redirect_stderr(None):
            init([path], database, {})
        changes = [item.mutations[0] for item in database.work_items]
    changes = [change for change in changes if not change.operator_name.startswith(IN_ANNOTATIONS)]
    changes.sort(key=lambda change: (change.start_pos, change.operator_name, change.occurrence))
    return {name_of(change): change for change in changes}


def survivors(module: str, sample: list[MutationSpec]) -> tuple[int, int]:
    """How many changes are equal in effect, and how many others no test noticed; both are printed."""
    tests = [f"tests/test_{name}.py" for name in TESTS[module]]
    sys.dont_write_bytecode = False
    if not pass_all(tests):
        raise SystemExit(f"the tests of {module} fail as they are: {' '.join(tests)}")
    # What is not changed stays compiled; of what is, a change within a second of another would be taken for it.
    sys.dont_write_bytecode = True
    for compiled in Path("medsae_plugin", module).parent.glob(f"__pycache__/{Path(module).name}.*"):
        compiled.unlink()
    reasons = reasons_of(module)
    equal = lived = 0
    for change in sample:
        with use_mutation(Path(change.module_path), get_operator(change.operator_name)(), change.occurrence) as code:
            before, after = changed_lines(*code)
            reason = reasons.get(after or before)
            if reason is None and not pass_all(tests):
                continue
        equal, lived = equal + (reason is not None), lived + (reason is None)
        said = f"equal in effect ({reason})" if reason else "not noticed"
        print(f"  {said}: {module} {name_of(change)}\n    -{before}\n    +{after}", flush=True)
    return equal, lived


def pass_all(tests: list[str]) -> bool:
    """Whether tests pass, in a fork of this process."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT, TIMEOUT))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        hypothesis.settings.register_profile("once", phases=[Phase.explicit, Phase.generate], derandomize=True)
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=once", *tests])))
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests may have started
    return status == 0


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """The line that a change is in, before and after; the latter empty where it was removed."""
    diff = [*difflib.ndiff(before.splitlines(), after.splitlines())]
    return tuple(" ".join(line[2:].strip() for line in diff if line.startswith(sign)) for sign in ("- ", "+ "))


def reasons_of(module: str) -> dict[str, str]:
    """Why no test can notice a change, by the line that it makes (or removes)."""
    with EQUAL.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["line"]: row["reason"] for row in rows if row["module"] == module}


def name_of(change: MutationSpec) -> str:
    """An operator of cosmic-ray's, and which of the places in the module where it fits."""
    return f"{change.operator_name.removeprefix('core/')}:{change.occurrence}"


if __name__ == "__main__":
    main()
