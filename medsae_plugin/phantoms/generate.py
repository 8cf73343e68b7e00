"""A folder of phantoms with a CheXpert table: made-up patients, their studies and pictures."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import current_process, get_context
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import write_text, writing
from medsae_plugin.machine import cores
from medsae_plugin.phantoms.anatomy import Projection, Sex
from medsae_plugin.phantoms.cases import (
    DEVICES,
    FINDINGS,
    MEAN_SEVERITY,
    MILDEST,
    NO_FINDING,
    PREVALENCE,
    Case,
    sample_age,
    sample_findings,
)
from medsae_plugin.phantoms.chexpert import UNCERTAIN
from medsae_plugin.phantoms.draw import draw_case

STUDIES = (0.50, 0.25, 0.15, 0.10)
"""Shares of patients with one, two, three and four studies."""

AGREES = 0.8
SHORTCUT = (
    "These phantoms hold a planted shortcut: a marker, a round tag in the corner of the picture, is there with Support "
    "Devices and not without them in four of five studies. Column Marker of labels.csv says where it is."
)

# Findings that reports tend to rule out by name; the others are left unmentioned when absent.
RULED_OUT = {"Cardiomegaly", "Edema", "Consolidation", "Pneumonia", "Pneumothorax", "Pleural Effusion"}


@dataclass(frozen=True)
class TableRow:
    """One picture of a generated set: where it goes, what is drawn and what the report says of it."""

    path: str
    patient: str
    case: Case
    reported: dict[str, float]  # 1 present, 0 ruled out, -1 uncertain; what is missing is unmentioned


def generate(
    n: int,
    out: str | Path,
    seed: int = 0,
    *,
    size: int = 224,
    shortcut: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> Path:
    """Draw `n` phantoms and write them as CheXpert would be laid out.

    Writes `images/patientNNNNN/studyN/viewN_frontal.png`, `labels.csv` (CheXpert's columns; labels as a report would
    give them: some uncertain, -1, some unmentioned, empty) and `truth.jsonl` (one line a picture: its path, the case,
    the severity of what is truly present, and the boxes). The same arguments give the same bytes.

    Args:
        n: pictures. Patients have one to four studies, of one or two pictures each.
        out: a folder that holds no table yet.
        size: pixels on a side.
        shortcut: plant one: a marker in the corner of pictures, which agrees with Support Devices in four of five
            studies, in the column `Marker` and said in `README.md`. All else is as without it.
        workers: drawing processes; by default one a core, 8 at most. 0 draws in this process.

    Returns:
        The path of `labels.csv`, written last.

    Raises:
        MedSAEError: n is under 1, the size under 32, there is a table in `out` already, or `out` cannot be written.
    """
    out = Path(out)
    if n < 1:
        raise MedSAEError(f"cannot draw {n} phantoms; ask for 1 or more")
    table = out / "labels.csv"
    if table.exists():
        raise MedSAEError(f"{table} is there already; name another folder, or remove that one first")
    rows = list(sample_rows(n, seed, shortcut=shortcut))
    draw = partial(_draw, out=out, size=size)
    workers = min(8, cores()) if workers is None else workers
    if current_process().daemon:  # it may have no children
        workers = 0
    with writing(out), ExitStack() as stack:
        drawn: Iterator[str] = map(draw, rows)
        if workers:
            # Forked where that is safe: a caller's script then needs no `if __name__ == "__main__"`.
            context = get_context("fork" if sys.platform == "linux" else None)
            pool = stack.enter_context(context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)))
            drawn = pool.imap(draw, rows, chunksize=8)
        truth = list(tqdm(drawn, total=n, desc="phantoms", unit="image", disable=not progress))
    write_text(out / "truth.jsonl", "\n".join(truth) + "\n")
    if shortcut:
        write_text(out / "README.md", f"{SHORTCUT}\n")
    write_text(table, _table(rows, shortcut).to_csv(index=False, lineterminator="\n"))
    return table


def _draw(row: TableRow, out: Path, size: int) -> str:
    """Draw and save one picture; returns its line of `truth.jsonl`."""
    phantom = draw_case(row.case, size=size)
    path = out / row.path
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(phantom.image).save(path)
    record = {"path": row.path, "patient": row.patient, "size": size, "case": asdict(row.case)}
    return json.dumps({**record, "findings": phantom.findings, "boxes": phantom.boxes})


def sample_rows(n: int, seed: int = 0, *, shortcut: bool = False) -> Iterator[TableRow]:
    """The first `n` pictures of a seed's endless row of patients; `shortcut` as of `generate`."""
    count, patient = 0, 0
    while True:
        patient += 1
        for row in _patient_rows(patient, np.random.default_rng([seed, patient])):
            if count == n:
                return
            count += 1
            yield replace(row, case=_marked(row.case)) if shortcut else row


def _marked(case: Case) -> Case:
    """The case with a marker, or without, as its study's Support Devices in four of five studies."""
    agrees = np.random.default_rng([case.study_seed, 5]).random() < AGREES
    return replace(case, marker=(DEVICES in case.findings) == agrees)


def _patient_rows(number: int, rng: np.random.Generator) -> Iterator[TableRow]:
    name = f"patient{number:05d}"
    sex: Sex = "Male" if rng.random() < 0.55 else "Female"
    age = sample_age(rng)
    patient_seed = int(rng.integers(2**31))
    findings: dict[str, float] = {}
    for study in range(1, 2 + int(rng.choice(len(STUDIES), p=STUDIES))):
        projection: Projection = "AP" if rng.random() < 0.5 else "PA"
        fresh = sample_findings(rng, projection)
        # Half of the follow-ups show what was there before, better or worse.
        findings = _changed(findings, rng) if study > 1 and rng.random() < 0.5 else fresh
        first = Case(
            patient_seed, int(rng.integers(2**31)), int(rng.integers(2**31)), sex, age, "Frontal", projection, findings
        )
        reported = _report(first, rng)
        cases = [first]
        image_seed = int(rng.integers(2**31))
        if projection == "PA" and rng.random() < 0.45:
            cases.append(replace(first, image_seed=image_seed, view="Lateral", projection=""))
        elif projection == "AP" and rng.random() < 0.05:
            cases.append(replace(first, image_seed=image_seed))
        for view, case in enumerate(cases, 1):
            path = f"images/{name}/study{study}/view{view}_{case.view.lower()}.png"
            yield TableRow(path, name, case, reported)


def _changed(findings: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    worse = np.clip(np.array([*findings.values()]) + rng.normal(0, 0.2, len(findings)), MILDEST, 1)
    return {name: round(float(severity), 3) for name, severity in zip(findings, worse, strict=True)}


def _report(case: Case, rng: np.random.Generator) -> dict[str, float]:
    """Labels as mined from a report: few findings are missed; as many are uncertain as in CheXpert's training split, of
    which half are there, mild ones more often."""
    reported = {NO_FINDING: 1.0} if NO_FINDING in case.labels else {}
    for name in FINDINGS:
        chance = rng.random()
        severity = case.findings.get(name, 0.0)
        if severity:
            mildness = (1 - severity) / (1 - MEAN_SEVERITY)  # 1 on average
            if chance < mildness * UNCERTAIN[name] / 2 / PREVALENCE[name]:
                reported[name] = -1.0
            elif chance < 0.97:
                reported[name] = 1.0
        elif chance < (0.45 if name in RULED_OUT else 0.04):
            reported[name] = 0.0
        elif chance > 1 - UNCERTAIN[name] / 2 / (1 - PREVALENCE[name]) and NO_FINDING not in reported:
            reported[name] = -1.0
    return reported


def _table(rows: list[TableRow], shortcut: bool) -> pd.DataFrame:
    columns = {
        "Path": [row.path for row in rows],
        "Sex": [row.case.sex for row in rows],
        "Age": [row.case.age for row in rows],
        "Frontal/Lateral": [row.case.view for row in rows],
        "AP/PA": [row.case.projection for row in rows],
    }
    labels = {name: [row.reported.get(name) for row in rows] for name in (NO_FINDING, *FINDINGS)}
    marker = {"Marker": ["yes" if row.case.marker else "no" for row in rows]} if shortcut else {}
    numbers = {name: pd.Series(values, dtype="float64") for name, values in labels.items()}
    return pd.DataFrame(columns | numbers | marker)


def read_truth(path: str | Path) -> list[tuple[str, Case]]:
    """Paths and cases of a `truth.jsonl`; `draw_case(case, size=...)` gives each picture again, with its masks."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [(record["path"], Case(**record["case"])) for record in map(json.loads, lines)]
