"""What becomes of latents from one layer to the next: they continue, split, merge, die, are born."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

LINK = 0.5
FATES = ("continues", "splits", "merges", "dies", "silent")
ORIGINS = ("continued", "split off", "merged", "born", "silent")


@dataclass(frozen=True)
class Flow:
    """The links between two layers' latents.

    sources, targets: `(links,)` the linked latents of the earlier and the later layer. r: `(links,)` on `report`.
    fates: `(latents_a,)` an entry of `FATES` of each earlier latent. origins: `(latents_b,)` one of `ORIGINS` of each
    later one.
    """

    sources: np.ndarray
    targets: np.ndarray
    r: Float[np.ndarray, " links"]
    fates: np.ndarray
    origins: np.ndarray

    def counts(self) -> dict[str, dict[str, int]]:
        """How many latents have each fate and each origin."""
        return {
            "fates": {fate: int((self.fates == fate).sum()) for fate in FATES},
            "origins": {origin: int((self.origins == origin).sum()) for origin in ORIGINS},
        }


def flow(
    r: Mapping[str, Float[np.ndarray, "latents_a latents_b"]],
    eligible_a: Bool[np.ndarray, " latents_a"],
    eligible_b: Bool[np.ndarray, " latents_b"],
) -> Flow:
    """The fate of each latent of an earlier layer and the origin of each of a later one.

    Latents i (earlier) and j (later) are linked where their activations over images have Pearson's r_ij >= 0.5 (`LINK`)
    on `select` and again on `report`, on other patients. A latent that parts into m that never fire together, equally
    often and equally strongly, has r of about 1 / sqrt(m) with each, so a parting into up to four is seen.

    - An earlier latent **dies** where it has no link, **splits** where it has two or more, **merges** where its only
      link is to a latent that has two or more, and **continues** where its only link is to a latent that has no other.
    - A later latent is **born** where it has no link, **merged** where it has two or more, **split off** where its only
      link is to a latent that has two or more, and **continued** otherwise.
    - A latent that fires on too few images of `select` to be matched is **silent**, and has no link.
    """
    with np.errstate(invalid="ignore"):
        linked = (r["select"] >= LINK) & (r["report"] >= LINK)
    linked &= eligible_a[:, None] & eligible_b
    out, into = linked.sum(1), linked.sum(0)
    sources, targets = np.nonzero(linked)
    only_target, only_source = linked.argmax(1), linked.argmax(0)
    fates = np.select(
        [~eligible_a, out == 0, out > 1, into[only_target] > 1], ["silent", "dies", "splits", "merges"], "continues"
    )
    origins = np.select(
        [~eligible_b, into == 0, into > 1, out[only_source] > 1], ["silent", "born", "merged", "split off"], "continued"
    )
    return Flow(sources, targets, r["report"][sources, targets], fates, origins)
