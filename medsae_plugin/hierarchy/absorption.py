"""Where a parent's latents are silent on a child's images though a probe of the parent finds it: feature absorption.

After Chanin et al. 2024 (arXiv 2409.14507), with SAEBench's thresholds (arXiv 2503.09532).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from medsae_plugin.hierarchy.results import Absorption, Instead
from medsae_plugin.scores.registry import number
from medsae_plugin.scores.units import Latents
from medsae_plugin.selectivity.ablation import written_by_image, written_directions
from medsae_plugin.statistics.intervals import LEAST_FIRING, LEAST_PATIENTS, t_interval
from medsae_plugin.statistics.jackknife import PatientJackknife
from medsae_plugin.store.reader import ActivationStore

LEAST_COSINE, LEAST_PART = 0.025, 0.4
N_INSTEAD = 3
NO_LATENT, NO_PROBE = "no latent carries the parent more than what is beneath it", "no probe of the parent"


@dataclass(frozen=True)
class Standing:
    """Of images the latent with the largest part along a probe's direction.

    part: its share of all that the image has along it, beyond the SAE's bias. cosine: of what it writes with the probe.
    """

    latent: Int[np.ndarray, " images"]
    part: Float[np.ndarray, " images"]
    cosine: Float[np.ndarray, " images"]

    @property
    def absorbs(self) -> Bool[np.ndarray, " images"]:
        return (self.cosine >= LEAST_COSINE) & (self.part >= LEAST_PART)

    @classmethod
    def on(
        cls, store: ActivationStore, units: Latents, ids: Int[np.ndarray, " images"], weights: Float[np.ndarray, " d"]
    ) -> Standing:
        """On images of a store, by their ids.

        What an image has along the unit direction v of the probe is x . v less that of the SAE's bias: the sum over
        latents of a_j d_j . v, and what the SAE leaves of x, all mean over positions. A share is 0 where it is not
        above 0.
        """
        v = weights / max(float(np.linalg.norm(weights)), 1e-300)
        directions = written_directions(units)
        along = directions @ v
        cosines = along / np.maximum(np.linalg.norm(directions, axis=1), 1e-300)
        latents, parts = [np.empty(0, dtype=np.int64)], [np.empty(0)]
        for one in written_by_image(store, units, ids, rest=True):
            assert one.rest is not None
            each = one.amount * along
            whole = each.sum(1) + one.rest @ v
            top = each.argmax(1)
            largest = each[np.arange(len(each)), top]
            latents.append(top)
            parts.append(np.divide(largest, whole, out=np.zeros_like(whole), where=whole > 0))
        latent = np.concatenate(latents)
        return cls(latent, np.concatenate(parts), cosines[latent])


def absorption(
    parent: str,
    child: str,
    *,
    y: Float[np.ndarray, "rows 2"],
    found: Bool[np.ndarray, " rows"],
    silent: Bool[np.ndarray, " rows"],
    standing: Standing,
    childs: Sequence[int],
    patients: np.ndarray,
) -> Absorption:
    """What is said of a parent and a child.

    Args:
        y: of the images of `report` both labels. found: where the parent's probe finds it. silent: where all of the
            parent's latents are. standing: of the images that are both, in their order.
        childs: the child's latents.
    """
    absorbed = np.zeros(len(y), dtype=bool)
    looked = np.flatnonzero(found & silent)
    absorbed[looked] = standing.absorbs
    of_child, of_others = found & (y[:, 1] == 1), found & (y[:, 0] == 1) & (y[:, 1] == 0)
    mine = of_child[looked] & standing.absorbs
    counts = Counter(standing.latent[mine].tolist())
    instead = [
        Instead(
            latent=latent,
            images=n,
            part=float(standing.part[mine & (standing.latent == latent)].mean()),
            cosine=float(standing.cosine[standing.latent == latent][0]),
            childs=latent in childs,
        )
        for latent, n in counts.most_common(N_INSTEAD)
    ]
    low, high, why = _interval(silent, of_child, of_others, patients)
    return Absorption(
        parent=parent,
        child=child,
        images=int((y[:, 1] == 1).sum()),
        found=int(of_child.sum()),
        silent=_share(silent, of_child),
        absorbed=_share(absorbed, of_child),
        by_child=number(np.isin(standing.latent[mine], list(childs)).mean()) if mine.any() else None,
        others=int(of_others.sum()),
        others_silent=_share(silent, of_others),
        others_absorbed=_share(absorbed, of_others),
        low=low,
        high=high,
        no_interval=why,
        instead=instead,
    )


def _share(these: Bool[np.ndarray, " rows"], of: Bool[np.ndarray, " rows"]) -> float | None:
    return float(these[of].mean()) if of.any() else None


def _interval(
    silent: Bool[np.ndarray, " rows"],
    of_child: Bool[np.ndarray, " rows"],
    of_others: Bool[np.ndarray, " rows"],
    patients: np.ndarray,
) -> tuple[float | None, float | None, str | None]:
    """Of the difference of both shares of silent images, over patients; or why there is none."""
    counts = [len(np.unique(patients[some])) for some in (of_child, of_others)]
    if min(counts) < LEAST_PATIENTS:
        return (
            None,
            None,
            f"fewer than {LEAST_PATIENTS} patients with the child, or without it, where the parent is found",
        )
    events = len(np.unique(patients[silent & (of_child | of_others)]))
    if events < LEAST_FIRING:
        return None, None, f"the parent's latents are silent on fewer than {LEAST_FIRING} of the patients"
    jackknife = PatientJackknife(patients)
    shares = [jackknife.sums(silent & some) / jackknife.sums(some) for some in (of_child, of_others)]
    difference = silent[of_child].mean() - silent[of_others].mean()
    return *t_interval(float(difference), shares[0] - shares[1], float(min(counts) - 1)), None
