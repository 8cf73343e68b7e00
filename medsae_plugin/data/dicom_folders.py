"""A folder of DICOM files as an archive gives it: a table of its radiographs, from their headers."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from medsae_plugin.data.dialects import PLAIN, Shaped
from medsae_plugin.data.spread import spread
from medsae_plugin.data.table_files import RawTable
from medsae_plugin.data.table_parts import Wanted
from medsae_plugin.data.tables import ImageTable, table_of
from medsae_plugin.errors import MedSAEError, reason_of
from medsae_plugin.files import write_text

RADIOGRAPHS = ("CR", "DX", "RG")
_TAGS = (
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate"),
    *("Modality", "ViewPosition", "ImageLaterality", "Laterality", "Manufacturer", "InstitutionName", "Rows"),
    *("SeriesDescription", "NumberOfFrames", "SOPInstanceUID", "StudyInstanceUID", "AccessionNumber"),
)
_OLDEST = 89  # older ages may tell who it is (45 CFR 164.514(b)(2)(i)(C))


@dataclass(frozen=True)
class _Header:
    """What a file's header says, or why the file is left aside."""

    path: str
    aside: str = ""
    tags: dict[str, str] | None = None


def scan_dicom(
    root: str | Path,
    *,
    modalities: Sequence[str] = RADIOGRAPHS,
    series_description: str | None = None,
    keep_ids: bool = False,
    salt: str | None = None,
    workers: int = 0,
    progress: bool = False,
) -> ImageTable:
    """The radiographs below a folder, whatever their files are called, with what their headers say; no labels.

    Files that are no DICOM, hold no image or several, are of other modalities or series, name no patient, or come
    twice are left aside, and counted. Of what tells who a patient is, nothing is in the table but a pseudonym; ages
    over 89 are 90.

    Args:
        modalities: those that are taken.
        series_description: a regular expression that a series' description has to match somewhere, whatever its case.
        keep_ids: patients by their Patient ID, in place of a salted hash of it, and ages as they are.
        salt: of the hash; default the environment's `MEDSAE_SALT`, else a random one that is made once a user.
        workers: processes that read headers; 0: this one.

    Raises:
        MedSAEError: no folder, no radiograph in it, a pattern that is none, a path that tells its patient's name or ID.
    """
    root = Path(root)
    if not root.is_dir():
        raise MedSAEError(f"{root} is not a folder")
    try:
        wanted = None if series_description is None else re.compile(series_description, re.IGNORECASE)
    except re.error as error:
        raise MedSAEError(f"--series-description {series_description!r} is no regular expression: {error}") from None
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    left: Counter[str] = Counter()
    seen: set[str] = set()
    kept: list[tuple[str, dict[str, str]]] = []
    for header in spread(partial(_read, root), files, workers, "reading headers", progress):
        tags = header.tags or {}
        aside = header.aside or _aside(tags, modalities, wanted, seen)
        if aside:
            left[aside] += 1
        else:
            seen.add(tags["SOPInstanceUID"])
            kept.append((header.path, tags))
    counts = [f"{n:,} files left aside: {why}" for why, n in sorted(left.items())]
    if not kept:
        raise MedSAEError(f"{root} holds no radiograph in DICOM" + "".join(f"; {count}" for count in counts))
    if not keep_ids:
        _check_paths(root, kept)
    studies = len({tags["StudyInstanceUID"] for _, tags in kept})
    notes = (f"{len(kept):,} images of {studies:,} studies", *counts)
    return _table(root, kept, None if keep_ids else (salt or _own_salt()), notes)


def _read(root: Path, path: str) -> _Header:
    """A file's header. A process of its own may run this."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    if Path(path).name.upper() == "DICOMDIR":
        return _Header(path, "a DICOMDIR")
    try:
        header = pydicom.dcmread(root / path, stop_before_pixels=True, specific_tags=[*_TAGS])
        return _Header(path, tags={name: str(header.get(name) or "").strip() for name in _TAGS})
    except InvalidDicomError:
        return _Header(path, "no DICOM file")
    except OSError as error:
        return _Header(path, f"cannot be read ({error.strerror or 'damaged'})")
    except Exception:  # pydicom raises whatever it stumbles on
        return _Header(path, "damaged")


def _aside(tags: dict[str, str], modalities: Sequence[str], wanted: re.Pattern[str] | None, seen: set[str]) -> str:
    """Why a DICOM file is left aside; "" for one that is taken."""
    if tags["Rows"] in ("", "0"):
        return f"no image ({tags['Modality'] or 'of no modality'})"
    if tags["Modality"] not in modalities:
        return f"modality {tags['Modality'] or 'not told'}"
    if tags["NumberOfFrames"] not in ("", "0", "1"):
        return "several frames"
    if wanted is not None and not wanted.search(tags["SeriesDescription"]):
        return "another series description"
    if not tags["PatientID"]:
        return "no Patient ID"
    return "the same image again" if tags["SOPInstanceUID"] in seen else ""


def _check_paths(root: Path, kept: list[tuple[str, dict[str, str]]]) -> None:
    """Paths are written into tables and stores: do they tell who a patient is?"""
    telling = 0
    for path, tags in kept:
        words = {word for word in re.split(r"[\W_]+", path.casefold()) if word}
        names = {part for part in re.split(r"[\W_]+", tags["PatientName"].casefold()) if len(part) > 2}
        ids = [tags[name].casefold() for name in ("PatientID", "AccessionNumber", "PatientBirthDate") if tags[name]]
        telling += bool(words & {*names, *ids}) or any(len(one) > 4 and one in path.casefold() for one in ids)
    if telling:
        raise MedSAEError(
            f"{root}: {telling:,} of {len(kept):,} paths hold their patient's name, ID, birth date or accession "
            "number, and paths are written into tables and stores; rename the files, or say --keep-ids"
        )


def _table(root: Path, kept: list[tuple[str, dict[str, str]]], salt: str | None, notes: tuple[str, ...]) -> ImageTable:
    rows = []
    for path, tags in kept:
        whose = "\0".join(filter(None, (tags["PatientID"], tags["IssuerOfPatientID"])))
        rows.append(
            {
                "path": path,
                "patient": tags["PatientID"] if salt is None else _pseudonym(whose, salt),
                "sex": tags["PatientSex"],
                "age": _age(tags),
                "projection": tags["ViewPosition"],
                "laterality": tags["ImageLaterality"] or tags["Laterality"],
                "device": tags["Manufacturer"],
                "site": tags["InstitutionName"],
            }
        )
    raw = RawTable(root, pd.DataFrame(rows, dtype=str), [path for path, _ in kept])
    table = table_of(Shaped(raw, notes=notes), PLAIN, "", root, Wanted())
    assert table.reading is not None
    patient = "Patient ID" if salt is None else "a salted hash of Patient ID"
    columns = {**table.reading.columns, "path": f"files in {root}", "patient": patient}
    headers = {"sex": "Patient's Sex", "age": "Patient's Age, or from the birth date", "projection": "View Position"}
    headers |= {"laterality": "Image Laterality, or Laterality", "device": "Manufacturer", "site": "Institution Name"}
    columns |= {name: words for name, words in headers.items() if name in columns}
    frame = table.frame
    if salt is not None and "age" in frame:
        frame = frame.assign(age=frame["age"].where(~(frame["age"] > _OLDEST), _OLDEST + 1.0))
    return replace(table, frame=frame, reading=replace(table.reading, source=str(root), dialect="", columns=columns))


def _pseudonym(patient: str, salt: str) -> str:
    return hashlib.blake2b(patient.encode(), key=hashlib.sha256(salt.encode()).digest(), digest_size=8).hexdigest()


def _age(tags: dict[str, str]) -> str:
    """Years, or DICOM's age string."""
    if tags["PatientAge"]:
        return tags["PatientAge"]
    birth, study = (re.fullmatch(r"(\d{4})(\d{4})", tags[name]) for name in ("PatientBirthDate", "StudyDate"))
    return str(int(study[1]) - int(birth[1]) - (study[2] < birth[2])) if birth and study else ""


def _own_salt() -> str:
    """The user's salt, made once: without it, whoever guesses a Patient ID could find its hash."""
    if salt := os.environ.get("MEDSAE_SALT"):
        return salt
    file = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medsae" / "salt"
    try:
        if file.is_file():
            return file.read_text("utf-8").strip()
        file.parent.mkdir(parents=True, exist_ok=True)
        salt = secrets.token_hex(32)
        write_text(file, salt + "\n")
        file.chmod(0o600)
    except OSError as error:
        raise MedSAEError(f"{file}: {reason_of(error)}; give a salt in MEDSAE_SALT, or say --keep-ids") from None
    return salt
