"""What the tables of a data set mean: which columns are labels, and what their cells say.

A dialect is an entry of `DIALECTS`; another data set's is another entry: `DIALECTS.append(Dialect(...))`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsae_plugin.data.dialects.base import Dialect, Shaped
from medsae_plugin.data.dialects.chexpert import CHEXPERT
from medsae_plugin.data.dialects.findings import FINDINGS, key
from medsae_plugin.data.dialects.kaggle import RSNA, SIIM
from medsae_plugin.data.dialects.mimic import MIMIC
from medsae_plugin.data.dialects.nih import NIH
from medsae_plugin.data.dialects.openi import OPENI
from medsae_plugin.data.dialects.padchest import PADCHEST
from medsae_plugin.data.dialects.vindr import VINDR
from medsae_plugin.errors import MedSAEError

__all__ = ["DIALECTS", "FINDINGS", "PLAIN", "Dialect", "Shaped", "dialect_of", "key"]


def _any_table(columns: Sequence[str], paths: Sequence[str]) -> str:
    return "no data set's that is known here"


PLAIN = Dialect("plain", _any_table, None, np.nan, "unknown")
DIALECTS = [PLAIN, SIIM, RSNA, OPENI, VINDR, PADCHEST, NIH, CHEXPERT, MIMIC]
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
        # Those first that one's own table is likeliest in.
        names = sorted((d.name for d in DIALECTS), key=lambda name: (name not in ("chexpert", "plain"), name))
        raise MedSAEError(f"no dialect {named!r}; there are {', '.join(names)}")
    for dialect in reversed(DIALECTS):
        if why := dialect.recognise(columns, paths):
            return dialect, why
    raise AssertionError("plain takes any table")
