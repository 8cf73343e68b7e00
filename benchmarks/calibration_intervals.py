"""Whether intervals hold: how often each covers the truth in simulated tables of patients; nominal is 0.95.

    python benchmarks/calibration_intervals.py            # 2000 replications a row: half an hour on one core
    python benchmarks/calibration_intervals.py --quick    # 200 replications

Every row draws tables whose truth is known, computes the interval with the package's functions, and counts. What is
refused, with a reason, is not counted, and how much that was is said. Shares stand with twice their Monte Carlo error
and the number of replications. `benchmarks/calibration.py` prints these rows among its own.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from medsae_plugin.comparison.differences import LeftOut, Replicates, differences
from medsae_plugin.scores.scoring import patients_with
from medsae_plugin.statistics.bootstrap import studentised_interval
from medsae_plugin.statistics.intervals import (
    LEAST_PATIENTS,
    auroc_interval,
    correlation_interval,
    reason_for_none,
    t_interval,
)
from medsae_plugin.statistics.jackknife import PatientJackknife

REPLICATIONS, QUICK = 2000, 200
SHAPES = (("dense", 1.0), ("dense", 2.5), ("sparse", 1.0), ("sparse", 2.5))
"""Latents: how they fire, and how many standard deviations higher where the finding is."""
FIRES_ABOVE = {"dense": -np.inf, "sparse": 1.3, "rare": 2.0}
ICC = 0.7  # of activations of a patient's images


class Settings(NamedTuple):
    """quick: few replications. seed: of every draw."""

    quick: bool
    seed: int = 0


class Found(NamedTuple):
    """What was found of how many replications, its Monte Carlo error, and a note, such as how many were refused."""

    found: float
    of: int
    error: float
    note: str = ""

    def __str__(self) -> str:
        if np.isnan(self.found):
            return self.note
        return f"{self.found:.3f} +- {2 * self.error:.3f} ({', '.join(filter(None, (f'{self.of:,}', self.note)))})"


class Row(NamedTuple):
    """A line of the table: what is simulated, what should be found, what was found before, and how to find it now."""

    what: str
    nominal: str
    before: str
    find: Callable[[Any], Found]


class Table(NamedTuple):
    """Simulated images: of each its patient, labels and the activations of each label's top latent."""

    patients: np.ndarray
    labels: np.ndarray
    activations: np.ndarray


def draw(
    rng: np.random.Generator, n: int, share: float | int, shapes: list[tuple[str, float]], clustered: bool
) -> Table:
    """A table of `n` patients with a label for each latent of `shapes`.

    share: of the patients that have a finding, or how many have it. In a clustered table a patient has 1 to 10 images,
    of which the first and eight of ten others show the finding.
    """
    sizes = rng.choice([1, 2, 3, 4, 6, 10], p=[0.35, 0.25, 0.15, 0.1, 0.1, 0.05], size=n) if clustered else np.ones(n)
    code = np.repeat(np.arange(n), sizes.astype(int))
    first = np.flatnonzero(np.diff(code, prepend=-1))
    shared = ICC if clustered else 0.0
    labels, activations = [], []
    for shape, effect in shapes:
        ill = rng.random(n) < share
        if isinstance(share, int):
            ill = np.zeros(n, dtype=bool)
            ill[rng.choice(n, share, replace=False)] = True
        present = ill[code] & ((rng.random(len(code)) < 0.8) | np.isin(np.arange(len(code)), first))
        noise = np.sqrt(shared) * rng.normal(size=n)[code] + np.sqrt(1 - shared) * rng.normal(size=len(code))
        above = FIRES_ABOVE[shape]
        a = noise + effect * present
        labels.append(present.astype(float))
        activations.append(a if np.isinf(above) else np.maximum(a - above, 0))
    return Table(code, np.stack(labels, axis=1), np.stack(activations, axis=1))


@functools.cache
def truth(share: float, shape: str, effect: float, clustered: bool) -> tuple[float, float]:
    """r and AUROC in a table of half a million patients."""
    from scipy.stats import rankdata

    table = draw(np.random.default_rng(99), 500_000, float(share), [(shape, effect)], clustered)
    y, a = table.labels[:, 0] > 0, table.activations[:, 0]
    positives, negatives = y.sum(), (~y).sum()
    auroc = (rankdata(a)[y].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return float(np.corrcoef(a, y)[0, 1]), float(auroc)


def refused(jackknife: PatientJackknife, table: Table) -> list[str | None]:
    """Of each label why there is no interval, as `Scored.no_interval`."""
    fires, present = table.activations > 0, table.labels == 1
    with_it, without = patients_with(jackknife, present), patients_with(jackknife, ~present)
    together, firing = patients_with(jackknife, fires & present), patients_with(jackknife, fires)
    expected = firing * with_it / jackknife.n_patients
    return [*map(reason_for_none, with_it, without, together, expected)]


def coverage(what: str, before: str, clustered: bool, trial: Callable[[int, int], bool | None]) -> Row:
    """The share of replications whose interval covers, of those where it is not refused.

    Args:
        trial: of the number of a replication and the seed: whether it covers, None where it is refused.
    """

    def find(settings: Any) -> Found:
        n = QUICK if settings.quick else REPLICATIONS
        known = [c for k in range(n) if (c := trial(k, settings.seed)) is not None]
        refused = f"refused in {1 - len(known) / n:.0%}" if len(known) < n else ""
        if len(known) < 0.05 * n:
            return Found(float("nan"), len(known), float("nan"), refused)
        found = float(np.mean(known))
        return Found(found, len(known), float(np.sqrt(found * (1 - found) / len(known))), refused)

    kind = "clustered patients" if clustered else "one image a patient"
    return Row(f"coverage of {what}, {kind}", "0.95", before, find)


def r_of_few(about: int, before: str, clustered: bool) -> Row:
    """r of a label with about so many positive patients of 200."""

    def trial(k: int, seed: int) -> bool | None:
        shape, effect = SHAPES[k % len(SHAPES)]
        table = draw(np.random.default_rng([0, k, seed]), 200, about / 200, [(shape, effect)], clustered)
        jackknife = PatientJackknife(table.patients)
        left_out = jackknife.pearson(table.activations, table.labels)[:, 0]
        if refused(jackknife, table)[0] or np.isnan(left_out).any():
            return None
        df = min(table_patients(jackknife, table)[0]) - 1
        r = float(np.corrcoef(table.activations[:, 0], table.labels[:, 0])[0, 1])
        low, high = correlation_interval(r, left_out, df)
        return low <= truth(about / 200, shape, effect, clustered)[0] <= high

    return coverage(f"r's interval, about {about} positives", before, clustered, trial)


def auroc_of_few(positives: int, before: str, clustered: bool) -> Row:
    """AUROC of a label with so many positive patients of 200."""

    def trial(k: int, seed: int) -> bool | None:
        shape, effect = SHAPES[k % len(SHAPES)]
        table = draw(np.random.default_rng([1, k, seed]), 200, positives, [(shape, effect)], clustered)
        jackknife = PatientJackknife(table.patients)
        if refused(jackknife, table)[0]:
            return None
        left_out = jackknife.auroc(table.activations, table.labels)[:, 0]
        y, a = table.labels[:, 0] == 1, table.activations[:, 0]
        auroc = float((np.sign(a[y][:, None] - a[~y]) + 1).mean() / 2)
        images = float(y.sum()), float((~y).sum())
        low, high = auroc_interval(auroc, left_out, images, table_patients(jackknife, table)[0])
        return low <= truth(positives / 200, shape, effect, clustered)[1] <= high

    return coverage(f"AUROC's interval, {positives} positives", before, clustered, trial)


def mean_top_r(shapes: list[tuple[str, float]], what: str, before: str, clustered: bool) -> Row:
    """The mean of r over labels of prevalence 0.2, of 200 patients."""

    def trial(k: int, seed: int) -> bool | None:
        expected = float(np.mean([truth(0.2, *shape, clustered)[0] for shape in shapes]))
        found = means(draw(np.random.default_rng([2, k, seed]), 200, 0.2, shapes, clustered))
        if found is None:
            return None
        low, high = correlation_interval(*found)
        return low <= expected <= high

    return coverage(f"mean top r, {what}, prevalence 0.2", before, clustered, trial)


def gain(clustered: bool) -> Row:
    """Mean top r of sparse latents less that of weaker dense ones for the same labels."""
    better, worse = [("sparse", 2.5), ("sparse", 1.0), ("sparse", 0.5)], [("dense", 1.0), ("dense", 0.7), ("dense", 0)]

    def both(rng: np.random.Generator, n: int) -> tuple[Table, Table]:
        table = draw(rng, n, 0.2, better, clustered)
        shared = draw(rng, n, 0.2, worse, clustered).activations if not clustered else None
        noise = rng.normal(size=table.labels.shape) if shared is None else shared
        return table, Table(table.patients, table.labels, noise + table.labels * [1.0, 0.7, 0.0])

    @functools.cache
    def expected() -> float:
        return float(np.subtract(*(np.mean(all_r(table)) for table in both(np.random.default_rng(98), 400_000))))

    def trial(k: int, seed: int) -> bool | None:
        found = [means(table) for table in both(np.random.default_rng([3, k, seed]), 200)]
        if found[0] is None or found[1] is None:
            return None
        (r, left_out, df), (other, others, _) = found
        low, high = t_interval(r - other, left_out - others, df)
        return low <= expected() <= high

    return coverage("the gain over neurons", "", clustered, trial)


def contrast(patients: int, before: str, clustered: bool) -> Row:
    """Attribution's contrast: the effect of a latent that fires on half or more of the patients with the finding."""
    shifts = (0.0, 0.75, 1.5)

    def values(rng: np.random.Generator, n: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
        counts = rng.choice([1, 2, 3, 6], p=[0.5, 0.25, 0.15, 0.1], size=n) if clustered else np.ones(n, dtype=int)
        code = np.repeat(np.arange(n), counts)
        shared = ICC if clustered else 0.0
        noise = np.sqrt(shared) * rng.normal(size=n)[code] + np.sqrt(1 - shared) * rng.normal(size=len(code))
        effect = 0.05 * np.maximum(noise + shift, 0) + 0.002 * rng.normal(size=len(code))
        return np.bincount(code, effect), counts.astype(float)

    @functools.cache
    def expected(shift: float) -> float:
        totals, counts = values(np.random.default_rng(97), 500_000, shift)
        return totals.sum() / counts.sum()

    def trial(k: int, seed: int) -> bool | None:
        if patients < LEAST_PATIENTS:
            return None
        totals, counts = values(np.random.default_rng([4, k, seed]), patients, shifts[k % 3])
        low, high = studentised_interval(totals, counts, 1000, seed=k)
        return None if np.isnan(low) else low <= expected(shifts[k % 3]) <= high

    return coverage(f"attribution's contrast, {patients} patients with the finding", before, clustered, trial)


@functools.cache
def seeds_apart(replications: int, seed: int) -> dict[str, np.ndarray]:
    """Six seeds of one recipe, whose latents differ by seed as well as by patient: how many differences are "real"."""
    found: dict[str, list[float]] = {"covers": [], "p": [], "any": [], "alone": []}
    for k in range(replications):
        six = six_seeds(np.random.default_rng([5, k, seed]))
        three = differences(six, [(Replicates("a", (0, 1, 2)), Replicates("b", (3, 4, 5)))])
        found["covers"].append(((three["low"] <= 0) & (three["high"] >= 0)).mean())
        found["p"].append((three["p"] < 0.05).mean())
        found["any"].append(float((three["fdr"] < 0.05).any()))
        every = [(Replicates(str(i), (i,)), Replicates(str(j), (j,))) for i in range(6) for j in range(i + 1, 6)]
        found["alone"].append((differences(six, every)["fdr"] < 0.05).mean())
    return {name: np.array(values) for name, values in found.items()}


def of_seeds(what: str, key: str, nominal: str, before: str = "", note: str = "") -> Row:
    """One of the shares that `seeds_apart` counts."""

    def find(settings: Any) -> Found:
        values = seeds_apart(50 if settings.quick else REPLICATIONS // 4, settings.seed)[key]
        return Found(float(values.mean()), len(values), float(values.std() / np.sqrt(len(values))), note)

    return Row(what, nominal, before, find)


def six_seeds(rng: np.random.Generator, n: int = 300, labels: int = 14) -> list[LeftOut]:
    """r of 14 labels by six SAEs: of every label each has a latent of its own quality, over the same patients."""
    table = draw(rng, n, 0.2, [("dense", 1.0)] * labels, False)
    jackknife = PatientJackknife(table.patients)
    made = []
    for _ in range(6):
        quality = rng.normal(1.0, 0.25, labels)
        noise = 0.7 * (table.activations - table.labels) + 0.7 * rng.normal(size=table.labels.shape)
        a = np.maximum(noise + quality * table.labels, 0)
        left_out, r = jackknife.pearson(a, table.labels), all_r(Table(table.patients, table.labels, a))
        names = [f"r: {c}" for c in range(labels)]
        figures = {name: left_out[:, c] for c, name in enumerate(names)} | {"mean_top_r": left_out.mean(1)}
        points = {name: float(r[c]) for c, name in enumerate(names)} | {"mean_top_r": float(r.mean())}
        df = float(table.labels.sum(0).min() - 1)
        made.append(LeftOut(points, figures, dict.fromkeys(points, df), {}))
    return made


def table_patients(jackknife: PatientJackknife, table: Table) -> list[tuple[float, float]]:
    """Of each label the patients with it and without."""
    return [*zip(*(patients_with(jackknife, table.labels == value) for value in (1, 0)), strict=True)]


def all_r(table: Table) -> np.ndarray:
    a, y = table.activations - table.activations.mean(0), table.labels - table.labels.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num((a * y).sum(0) / np.sqrt((a**2).sum(0) * (y**2).sum(0)))


def means(table: Table) -> tuple[float, np.ndarray, float] | None:
    """The mean of r, without each patient, and its degrees of freedom, as `Scored`; None where it is refused."""
    jackknife = PatientJackknife(table.patients)
    r, left_out = all_r(table), jackknife.pearson(table.activations, table.labels)
    undefined = np.isnan(left_out).any(0)
    known = [not (why or u) for why, u in zip(refused(jackknife, table), undefined, strict=True)]
    if sum(known) * 2 < len(known):
        return None
    held = np.where(undefined, r, left_out)
    df = sum(min(both) - 1 for both, k in zip(table_patients(jackknife, table), known, strict=True) if k)
    return float(r.mean()), held.mean(1), float(df)


SPARSE = [("sparse", 2.5), ("sparse", 1.0), ("rare", 2.5), ("rare", 1.0), ("rare", 0.0)]
THREES = "three seeds against three of one recipe"
ROWS = [
    *(r_of_few(n, was, c) for n, was in ((5, ""), (15, "0.79"), (20, "0.88")) for c in (False, True)),
    *(auroc_of_few(n, was, c) for n, was in ((5, "0.66"), (10, "0.79"), (20, "")) for c in (False, True)),
    mean_top_r([("sparse", 1.0)], "one sparse latent", "0.81", False),
    mean_top_r(SPARSE, "five sparse latents", "", False),
    mean_top_r(SPARSE, "five sparse latents", "", True),
    mean_top_r([("rare", 0.0)] * 5, "five rare latents of nothing", "", False),
    *(gain(c) for c in (False, True)),
    *(contrast(n, was, c) for n, was in ((2, "0.51"), (5, "0.73"), (10, "0.83"), (20, "0.90")) for c in (False, True)),
    of_seeds(f"{THREES}: coverage of the difference", "covers", "0.95"),
    of_seeds(f"{THREES}: share of p < 0.05", "p", "0.05", note="p is cautious"),
    of_seeds(f"{THREES}: any real difference", "any", "0.05", note="p is cautious"),
    of_seeds("six seeds, each taken for a recipe: share of real differences", "alone", "", "0.28", "of patients only"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} replications a row instead of {REPLICATIONS}")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| what | nominal | before | found |\n| --- | --- | --- | --- |")
    for row in ROWS:
        print(
            f"| {row.what} | {row.nominal} | {row.before} | {row.find(Settings(args.quick, args.seed))} |", flush=True
        )


if __name__ == "__main__":
    main()
