"""`LatentStatistics` as a file: arrays in safetensors, what they are as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import replacing
from medsae_plugin.scores.sums import ADDED, EXTREMES, MOMENTS, LatentStatistics

SCHEMA_VERSION = 1
# One key: safetensors writes several in no fixed order.
_KEY = "latent_statistics"
_ARRAYS = tuple(name for name in (*ADDED, *MOMENTS, *EXTREMES) if name != "histogram")


def save(statistics: LatentStatistics, path: Path) -> None:
    """See `LatentStatistics.save`. The histogram, mostly zeros, is written as its nonzeros."""
    counts = statistics.histogram.ravel()
    filled = np.flatnonzero(counts)
    tensors = {name: np.ascontiguousarray(getattr(statistics, name)) for name in _ARRAYS}
    tensors |= {"histogram_index": filled.astype(np.int64), "histogram_count": counts[filled]}
    what = {
        "schema_version": SCHEMA_VERSION,
        "n_latents": statistics.n_latents,
        "label_names": list(statistics.label_names),
        "d_embedding": statistics.d_embedding,
        "n_images": statistics.n_images,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(what, ensure_ascii=False)})


def load(path: Path) -> LatentStatistics:
    """See `LatentStatistics.load`."""
    try:
        with safe_open(path, "np") as file:
            what = json.loads((file.metadata() or {})[_KEY])
            if what["schema_version"] != SCHEMA_VERSION:
                raise MedSAEError(
                    f"{path} has schema version {what['schema_version']}; this version reads {SCHEMA_VERSION}"
                )
            statistics = LatentStatistics(what["n_latents"], what["label_names"], what["d_embedding"])
            statistics.n_images = what["n_images"]
            for name in _ARRAYS:
                values = file.get_tensor(name)
                if values.shape != getattr(statistics, name).shape:
                    raise ValueError(f"{name} has shape {values.shape}")
                setattr(statistics, name, values)
            np.put(statistics.histogram, file.get_tensor("histogram_index"), file.get_tensor("histogram_count"))
    except FileNotFoundError:
        raise MedSAEError(f"there are no statistics at {path}") from None
    except MedSAEError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise MedSAEError(f"{path} does not hold sound statistics ({error})") from None
    return statistics
