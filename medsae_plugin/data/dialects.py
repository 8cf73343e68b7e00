"""What the tables of a data set mean: which columns are labels, and what their cells say.

A dialect is an entry of `DIALECTS`; another data set's is another entry: `DIALECTS.append(Dialect(...))`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from medsae_plugin.errors import MedSAEError
from medsae_plugin.observations import OBSERVATIONS

# Findings as tables name them: CheXpert's, then those that NIH ChestX-ray14, VinDr-CXR, PadChest and RSNA add.
FINDINGS = (
    *OBSERVATIONS,
    *("Effusion", "Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia"),
    *("Hiatal Hernia", "Diaphragmatic Hernia", "Aortic Enlargement", "Calcification", "Clavicle Fracture"),
    *("Rib Fracture", "Enlarged PA", "ILD", "Interstitial Lung Disease", "Lung Cavity", "Lung Cyst", "Other Lesion"),
    *(
        "Mediastinal Shift",
        "Nodule/Mass",
        "Nodule or Mass",
        "Pulmonary Fibrosis",
        "COPD",
        "Lung Tumor",
        "Lung Tumour",
        "Tuberculosis",
    ),
    *("Other Disease", "Other Diseases", "Airspace Opacity", "Opacity", "Infiltrate", "Infiltrates", "Pulmonary Edema"),
    *("Oedema", "Pulmonary Oedema", "Congestion", "Pulmonary Congestion", "Interstitial Pattern", "Alveolar Pattern"),
    *("Air Trapping", "Aortic Atheromatosis", "Aortic Elongation", "Bronchiectasis", "Bronchitis", "Bronchiolitis"),
    *("Costophrenic Angle Blunting", "Flattened Diaphragm", "Granuloma", "Hemidiaphragm Elevation", "Scoliosis"),
    *("Hilar Enlargement", "Pleural Thickenings", "Pneumomediastinum", "Pneumoperitoneum", "Subcutaneous Emphysema"),
    *("Cavitation", "Atypical Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia", "Bronchopneumonia", "COVID-19"),
    *("COVID", "Pacemaker", "Tube", "Endotracheal Tube", "Chest Tube", "Catheter", "Central Line", "Lung Cancer"),
    *(
        "Tumor",
        "Tumour",
        "Metastasis",
        "Silicosis",
        "Pneumoconiosis",
        "Sarcoidosis",
        "Normal",
        "Abnormal",
        "No Findings",
    ),
)
_TRUE, _FALSE = ("true", "yes", "y", "t", "positive", "pos", "present"), ("false", "no", "n", "f", "negative", "neg")
MISSING = ("na", "n/a", "nan", "<na>", "#n/a", "null", "unknown")
_WORDS: dict[str, float] = {
    **dict.fromkeys(_TRUE, 1.0),
    **dict.fromkeys((*_FALSE, "absent"), 0.0),
    **dict.fromkeys(("u", "uncertain"), -1.0),
    **dict.fromkeys(MISSING, np.nan),
}
_MEANINGS = {1.0: "1", 0.0: "0", -1.0: "-1, uncertain"}
_CHEXPERT_PATH = re.compile(r"(?:^|/)(?:CheXpert-v1\.0[^/]*/|patient\d+/study\d+/view\d+)", re.IGNORECASE)


def key(name: str) -> str:
    """A name without case, spaces and signs, so that `pleural_effusion` is `Pleural Effusion`."""
    return "".join(c for c in name.casefold() if c.isalnum())


_KNOWN = frozenset(map(key, FINDINGS))


@dataclass(frozen=True)
class Dialect:
    """What a data set's tables mean.

    recognise: given the column names and the paths, why a table is one of these, in words; None if it is not.
    findings: the names of its labels; None where a column is a label if it is called by a finding of `FINDINGS`.
    aliases: other names of them, by `key`.
    empty: what an empty cell of these is, 0 or nan; `empty_means` says it.
    """

    name: str
    recognise: Callable[[Sequence[str], Sequence[str]], str | None]
    findings: tuple[str, ...] | None
    empty: float
    empty_means: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    def finding(self, column: str) -> str | None:
        """The finding that a column is of, by its name; None where it is of none."""
        if self.findings is None:
            return column if key(column) in _KNOWN else None
        names = {key(name): name for name in self.findings} | dict(self.aliases)
        return names.get(key(column))


def _chexpert(columns: Sequence[str], paths: Sequence[str]) -> str | None:
    keys = set(map(key, columns))
    own = {key(name) for name in OBSERVATIONS}
    found = own & keys
    if len(found) == len(own):
        return "its 14 observations"
    if not found:
        return None
    some = f"{len(found)} of its 14 observations"
    if {"frontallateral", "appa"} <= keys:
        return f"{some}, Frontal/Lateral and AP/PA"
    if all(map(_CHEXPERT_PATH.search, paths)):
        return f"{some}, and its paths"
    # NIH's and VinDr's tables share names with it, and hold others beside.
    shared = {"nofinding", "cardiomegaly", "edema", "consolidation", "pneumonia", "atelectasis", "pneumothorax"}
    return some if len(found) >= 5 and found - shared and not (keys & _KNOWN) - own else None


def _any_table(columns: Sequence[str], paths: Sequence[str]) -> str:
    return "no data set's that is known here"


CHEXPERT = Dialect(
    "chexpert",
    _chexpert,
    OBSERVATIONS,
    0.0,
    "0, not mentioned",
    {"effusion": "Pleural Effusion", "airspaceopacity": "Lung Opacity"},
)
PLAIN = Dialect("plain", _any_table, None, np.nan, "unknown")
DIALECTS = [PLAIN, CHEXPERT]
"""The last that recognises a table reads it, so that one's own, appended, comes before the package's."""


def dialect_of(columns: Sequence[str], paths: Sequence[str], named: str | None) -> tuple[Dialect, str]:
    """The dialect of a table, and why it is that one.

    Raises:
        MedSAEError: no dialect of the name.
    """
    if named is not None:
        for dialect in reversed(DIALECTS):
            if dialect.name == named:
                return dialect, "as was said"
        raise MedSAEError(f"no dialect {named!r}; there are {', '.join(sorted(d.name for d in DIALECTS))}")
    for dialect in reversed(DIALECTS):
        if why := dialect.recognise(columns, paths):
            return dialect, why
    raise AssertionError("plain takes any table")


def read_cells(
    cells: pd.Series, empty: float, places: Sequence[str], where: str
) -> tuple[Float[np.ndarray, " rows"], Counter[str]]:
    """The values of a label's cells, 0, 1, -1 and nan, and how often each word stood for one.

    Raises:
        MedSAEError: a cell that says none of these, or a missing value where an empty cell has a meaning.
    """
    text = cells.str.strip()
    codes, cases = pd.factorize(text)
    values = np.empty(len(cases))
    words: Counter[str] = Counter()
    for k, case in enumerate(cases):
        value = _value(str(case), empty)
        if value is None:
            row = int(np.flatnonzero(codes == k)[0])
            why = "is not 0, 1, -1 or empty"
            if case.casefold() in MISSING:
                why += ": where an empty cell is 0, this may be one, or unknown (--dialect plain reads both as unknown)"
            else:
                why += "; mend it, or name the label columns (--labels) without this one"
            raise MedSAEError(f"{where}, {places[row]}, column {cells.name!r}: {str(case)[:80]!r} {why}")
        values[k] = value
        if str(case).casefold() in _WORDS:
            words[f"{case!r} read as {_MEANINGS.get(value, 'unknown')}"] += int((codes == k).sum())
    return values[codes], words


def _value(text: str, empty: float) -> float | None:
    if not text:
        return empty
    if (word := text.casefold()) in _WORDS:
        value = _WORDS[word]
        return None if np.isnan(value) and not np.isnan(empty) else value
    try:
        number = float(text.replace(",", "."))  # a decimal comma
    except ValueError:
        return None
    return number if number in (0.0, 1.0, -1.0) else None


def why_no_label(cells: pd.Series, dialect: Dialect) -> str:
    """Why a column that no other use takes is not a label, in words."""
    cases = [str(case).strip() for case in cells.unique()]
    filled = [case for case in cases if case]
    if not filled:
        return "empty"
    if all(_value(case, np.nan) is not None for case in filled):
        named = "no observation of CheXpert's" if dialect is CHEXPERT else "named as no finding known here"
        return f"0 and 1 alone, but {named} (name it as a label to take it)"
    parts = {key(part) for case in filled for part in case.split("|")}
    if len(parts) > 1 and parts <= _KNOWN:
        return "findings by name in one column, which are not read"
    return "numbers" if pd.to_numeric(pd.Series(filled), errors="coerce").notna().all() else "text"
