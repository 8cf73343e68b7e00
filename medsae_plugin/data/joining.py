"""Two tables as one: one to choose on, another to report on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from medsae_plugin.data.columns import COVARIATES
from medsae_plugin.data.tables import ImageTable
from medsae_plugin.errors import MedSAEError


def join_tables(first: ImageTable, second: ImageTable) -> ImageTable:
    """The rows of `first` that `second` has not, then those of `second`; the labels that both have, as `first` orders
    them, and reports where both have them; covariates that one has, unknown in the other. What is said of the whole is
    said of `second`.

    Raises:
        MedSAEError: both have labels, and none in common.
    """
    names = tuple(name for name in first.label_names if name in second.label_names)
    if not names and first.label_names and second.label_names:
        raise MedSAEError(
            f"the two tables have no label in common: one has {', '.join(first.label_names)}, the other "
            f"{', '.join(second.label_names)}; name labels that both have (--labels)"
        )
    kept = np.flatnonzero(~first.frame["path"].isin(set(second.frame["path"])).to_numpy())
    parts = [first.take(kept), second]
    columns = [name for name in second.frame if name in first.frame and name not in COVARIATES]
    columns += [name for name in COVARIATES if any(name in part.frame for part in parts)]
    frame = pd.concat([part.frame.reindex(columns=columns) for part in parts], ignore_index=True)
    for name in (name for name in columns if name in COVARIATES and not pd.api.types.is_numeric_dtype(frame[name])):
        frame[name] = frame[name].fillna("")
    labels = [part.labels[:, [part.label_names.index(name) for name in names]] for part in parts]
    frame = frame.assign(image_id=np.arange(len(frame)))
    return replace(second, frame=frame, labels=np.concatenate(labels), label_names=names)
