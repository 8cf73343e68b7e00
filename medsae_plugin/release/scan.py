"""What must not leave the house: images, absolute paths, patients, and label counts that are small."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SMALL = 10
_IMAGE_SUFFIXES = r"png|jpe?g|jp2|tiff?|bmp|gif|webp|dcm|dicom|nii|svg"
# The first bytes of PNG, JPEG, GIF, TIFF and JPEG 2000 files; BMP, WebP and DICOM have theirs further on too.
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_IMAGE_NAME = re.compile(rf"\.({_IMAGE_SUFFIXES})(\.gz)?$", re.IGNORECASE)
_IMAGE_TEXT = re.compile(
    rf"data:image/|iVBORw0KGgo|/9j/[A-Za-z0-9+/]{{16}}|[\w./-]*[\w-]\.({_IMAGE_SUFFIXES})\b|<img\b|<svg\b|!\[",
    re.IGNORECASE,
)
# Of Unix: slashes before two words or more that are no part of a URL, or a home; of Windows: a drive, or a share.
_PATH_TEXT = re.compile(
    r"(?<![\w./<)\]-])/[\w.@~-]+(/[\w.@~-]+)+|(?<!\w)~/|file:/|(?<!\w)[A-Za-z]:[\\/]\w|\\\\[\w.-]+\\", re.ASCII
)
# CheXpert's patient01234 and study1; MIMIC-CXR's p10000032 and s50414267; DICOM's unique identifiers.
_PATIENT_TEXT = re.compile(r"(patient|subject|study)[_-]?\d{2,}|\b[ps]\d{8}\b|\b[12]\.\d+(\.\d+){5,}\b", re.IGNORECASE)
_PATIENT_KEY = re.compile(
    r"^(patient|subject|accession|study|medical_?record)_?(id|name|number)s?$|^mrn$", re.IGNORECASE
)
_COUNTS_BY_LABEL = re.compile(r"^(label_?counts?|positives?|negatives?|support)$")
_COUNT_KEY = re.compile(r"^(n_)?(positives?|negatives?|known|support|patients|images|tp|fp|tn|fn)$")


def scan(path: Path, name: str, small: int = SMALL) -> Iterator[str]:
    """What in a file should not be published, in words; `name` is the file's in the messages.

    JSON is searched value by value, other text as a whole, and of a safetensors file its header.
    """
    if is_image(path):
        yield f"{name} is an image"
    elif path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            yield f"{name} is not JSON, so it cannot be searched"
        else:
            yield from _scan_json(content, name, small)
    elif path.suffix == ".safetensors":
        yield from _scan_text(_header(path), name)
    else:
        yield from _scan_text(path.read_text(encoding="utf-8", errors="replace"), name)


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its name or by how it begins."""
    with path.open("rb") as file:
        head = file.read(132)
    begins = head.startswith(_IMAGE_STARTS) or (head[:2], head[6:10]) == (b"BM", bytes(4))
    return bool(_IMAGE_NAME.search(path.name)) or begins or head[128:] == b"DICM" or head[8:12] == b"WEBP"


def _header(path: Path) -> str:
    """The free text of a safetensors file: its metadata and its tensors' names."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return "\n".join([*(file.metadata() or {}).values(), *file.keys()])


def _scan_json(value: Any, where: str, small: int) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _scan_text(str(key), where)
            yield from _scan_json(inner, f"{where}: {key}" if isinstance(inner, dict | list) else where, small)
            if _PATIENT_KEY.match(key) and inner not in (None, "", []):
                yield f"{where} has a patient's {key}"
        yield from _small_counts(value, where, small)
    elif isinstance(value, list):
        for inner in value:
            yield from _scan_json(inner, where, small)
    elif isinstance(value, str):
        if value.startswith("/") and len(value) > 1:
            yield f"{where} has an absolute path, {_shortened(value)}"
        else:
            yield from _scan_text(value, where)


def _small_counts(entry: dict[str, Any], where: str, small: int) -> Iterator[str]:
    """Counts of images or patients by label; those without a finding count as much as those with it.

    No one is disclosed by a count of 0, but where all have the finding: then each of them is known to.
    """
    for key, by_label in entry.items():
        if _COUNTS_BY_LABEL.match(key) and isinstance(by_label, dict):
            for label, count in by_label.items():
                if isinstance(count, int) and count != 0 and count < small:
                    yield f"{where}, {label}: {key} is {count}, fewer than {small}"
    if "label" not in entry:
        return
    counts = {k: v for k, v in entry.items() if _COUNT_KEY.match(k) and isinstance(v, int) and not isinstance(v, bool)}
    if "known" in counts and "positives" in counts:
        counts["negatives"] = counts["known"] - counts["positives"]
        if not counts["negatives"] and counts["positives"] > 0 and small:
            yield f"{where}, {entry['label']}: all {counts['known']} have it, so each of them is known to"
    for key, count in counts.items():
        if count != 0 and count < small:
            yield f"{where}, {entry['label']}: {key} is {count}, fewer than {small}"


def _scan_text(text: str, where: str) -> Iterator[str]:
    for pattern, what in (
        (_IMAGE_TEXT, "an image"),
        (_PATH_TEXT, "an absolute path"),
        (_PATIENT_TEXT, "a patient"),
    ):
        if match := pattern.search(text):
            yield f"{where} has {what}, {_shortened(match[0])}"


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
