"""OpenI, Indiana University's collection: MeSH headings a report, images and their views in another table."""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medsae_plugin.data.dialects.base import Dialect, Shaped, beside, cells, column_of, column_or_none, listed
from medsae_plugin.data.dialects.findings import key
from medsae_plugin.data.table_files import RawTable, read_raw
from medsae_plugin.errors import MedSAEError, reason_of

# Headings that are findings by themselves. Others name a place (`Lung/hypoinflation`), and say little without the rest.
_FINDINGS = (
    *("normal", "Opacity", "Cardiomegaly", "Pulmonary Atelectasis", "Calcinosis", "Calcified Granuloma", "Cicatrix"),
    *("Pleural Effusion", "Atherosclerosis", "Catheters, Indwelling", "Airspace Disease", "Deformity", "Nodule"),
    *("Granulomatous Disease", "Implanted Medical Device", "Surgical Instruments", "Scoliosis", "Fractures, Bone"),
    *("Pulmonary Congestion", "Osteophyte", "Infiltrate", "Spondylosis", "Emphysema", "Granuloma", "Hernia, Hiatal"),
    *("Pulmonary Disease, Chronic Obstructive", "Pulmonary Edema", "Pneumonia", "Pulmonary Emphysema", "Arthritis"),
    *("Diaphragmatic Eventration", "Kyphosis", "Bone Diseases, Metabolic", "Tube, Inserted", "Consolidation"),
    *("Foreign Bodies", "Medical Device", "Spinal Fusion", "Pneumothorax", "Pulmonary Fibrosis", "Stents", "Mass"),
    *("Lung, Hyperlucent", "Lung Diseases, Interstitial", "Heart Failure", "Volume Loss", "Hypertension, Pulmonary"),
    *("Pericardial Effusion", "Pneumonectomy", "Mastectomy", "Bronchiectasis", "Cavitation", "Breast Implants"),
    *("Cystic Fibrosis", "Pneumoperitoneum", "Hydropneumothorax", "Aortic Aneurysm", "Bullous Emphysema"),
    *("Sarcoidosis", "Hernia, Diaphragmatic", "Osteoporosis", "Subcutaneous Emphysema", "Tuberculosis", "Hemothorax"),
)
_BY_KEY = {key(name): name for name in _FINDINGS}
_NOT_INDEXED = key("No Indexing")


def _recognise(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    if {"imageid", "patientid", "viewposition", "accessionnumber"} <= keys:
        return "its columns imageid, Patient ID, View Position and Accession Number"
    kaggle = {"uid", "filename", "projection"} <= keys or {"uid", "mesh", "problems"} <= keys
    return "its column uid, as in Kaggle's copy" if kaggle else None


def _shape(raw: RawTable, readers: str) -> Shaped:
    if column_or_none(raw, "imageid") is None:
        return _of_kaggle(raw)
    images = list(cells(raw, column_of(raw, "imageid")))
    paths = [f"{image}.png" for image in images]
    packed, folder = beside(raw.path, "NLMCXR_reports*"), raw.path.parent / "ecgen-radiology"
    if packed is None and not folder.is_dir():
        note = "its labels are in the reports: put NLMCXR_reports.tgz, or its folder ecgen-radiology, beside the table"
        return Shaped(raw, {"path": (paths, "imageid and .png")}, used=("imageid",), notes=(note,))
    source = folder if packed is None or folder.is_dir() else packed
    headings: dict[str, list[str]] = {}
    for report in _reports(source):
        found = [heading.text or "" for heading in report.findall(".//MeSH/major")]
        headings |= {image.attrib.get("id", ""): found for image in report.findall(".//parentImage")}
    return _labelled(raw, paths, "imageid and .png", [headings.get(image) for image in images], str(source))


def _of_kaggle(raw: RawTable) -> Shaped:
    """Kaggle's copy: `indiana_projections.csv`, an image a row, and `indiana_reports.csv`, a report a row."""
    parts = {"projection": raw, "MeSH": raw}
    for what, name in (("projection", "indiana_projections*"), ("MeSH", "indiana_reports*")):
        if column_or_none(raw, what) is None:
            if (other := beside(raw.path, name)) is None:
                raise MedSAEError(f"{raw.path}: OpenI's {name.rstrip('*')}.csv is not beside it, which belongs to it")
            parts[what] = read_raw(other)
    images, reports = parts["projection"], parts["MeSH"]
    found = cells(reports, column_of(reports, "MeSH"))
    of = dict(zip(cells(reports, column_of(reports, "uid")), found, strict=True))
    headings = [of[uid].split(";") if uid in of else None for uid in cells(images, column_of(images, "uid"))]
    filename = column_of(images, "filename")
    return _labelled(images, list(cells(images, filename)), f"column {filename}", headings, str(reports.path))


def _labelled(
    raw: RawTable, paths: list[str], paths_from: str, headings: list[list[str] | None], source: str
) -> Shaped:
    if not any(headings):
        raise MedSAEError(f"{source} has a report of none of the images of {raw.path}, such as {paths[0]!r}")
    found: list[list[str] | None] = []
    aside: Counter[str] = Counter()
    for several in headings:
        heads = {heading.partition("/")[0].strip() for heading in several or ()} - {""}
        names = [_BY_KEY[key(head)] for head in heads if key(head) in _BY_KEY]
        found.append(None if not heads or _NOT_INDEXED in map(key, heads) else names)
        aside.update(head for head in heads if key(head) not in (*_BY_KEY, _NOT_INDEXED))
    labels = listed(found, sorted({name for one in found for name in one or ()}))
    shown = ", ".join(f"{head} {n}" for head, n in aside.most_common(8))
    notes = [f"{len(aside)} MeSH headings of places and qualities are no labels, such as {shown}"] if aside else []
    if unknown := found.count(None):
        notes.append(f"{unknown:,} images have no report, or one that is not indexed, and their labels are unknown")
    used = tuple(column for name in ("imageid", "filename") if (column := column_or_none(raw, name)) is not None)
    return Shaped(
        raw, {"path": (paths, paths_from)}, labels, f"{source}, MeSH's major headings", used, notes=tuple(notes)
    )


def _reports(source: Path) -> Iterator[ElementTree.Element]:
    """The reports of a folder or a packed one, in order of their names.

    Raises:
        MedSAEError: one cannot be read.
    """
    try:
        if source.is_dir():
            for file in sorted(source.glob("*.xml")):
                yield ElementTree.fromstring(file.read_bytes())
            return
        with tarfile.open(source) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                if member.isfile() and member.name.endswith(".xml") and (content := archive.extractfile(member)):
                    yield ElementTree.fromstring(content.read())
    except (OSError, tarfile.TarError, ElementTree.ParseError, EOFError) as error:
        raise MedSAEError(f"{source} cannot be read: {reason_of(error)}") from None


OPENI = Dialect(
    "openi",
    _recognise,
    None,
    np.nan,
    "unknown; what a report's headings do not have is 0",
    columns={"path": ("imageid", "filename"), "patient": ("patientid", "uid"), "sex": ("patientssex",)},
    shape=_shape,
    suffixes=(".png", ".dcm", ".jpg"),
)
