"""What the cells of a label column say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from medsae_plugin.data.dialects.base import Dialect
from medsae_plugin.data.dialects.findings import KNOWN, key
from medsae_plugin.errors import MedSAEError

_TRUE, _FALSE = ("true", "yes", "y", "t", "positive", "pos", "present"), ("false", "no", "n", "f", "negative", "neg")
MISSING = ("na", "n/a", "nan", "<na>", "#n/a", "null", "unknown")
_WORDS: dict[str, float] = {
    **dict.fromkeys(_TRUE, 1.0),
    **dict.fromkeys((*_FALSE, "absent"), 0.0),
    **dict.fromkeys(("u", "uncertain"), -1.0),
    **dict.fromkeys(MISSING, np.nan),
}
_MEANINGS = {1.0: "1", 0.0: "0", -1.0: "-1, uncertain"}


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


def says_yes_or_no(words: Iterable[str]) -> str | None:
    """Of words that say no and yes, 0 and 1, or nothing, the one that says yes; None where they do not."""
    values = {word: _value(word.strip(), np.nan) for word in words}
    if not values or any(value is None or value == -1 for value in values.values()):
        return None
    return next((word for word, value in values.items() if value == 1), None)


def why_no_label(cells: pd.Series, dialect: Dialect) -> str:
    """Why a column that no other use takes is not a label, in words."""
    cases = cells.str.strip().drop_duplicates()
    filled = cases[cases != ""]  # walked through no further than is needed: a column of texts has many
    if filled.empty:
        return "empty"
    if all(_value(case, np.nan) is not None for case in filled):
        named = "named as no finding known here" if dialect.findings is None else f"no label of {dialect.name}'s"
        return f"0 and 1 alone, but {named} (name it as a label to take it)"
    if (len(filled) > 1 or "|" in filled.iloc[0]) and all(
        key(part) in KNOWN for case in filled for part in case.split("|")
    ):
        return "findings by name in one column, which are not read"
    return "numbers" if pd.to_numeric(filled, errors="coerce").notna().all() else "text"
