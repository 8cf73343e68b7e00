"""Are phantoms worth finding things in? How far trivial features get, what is drawn to be seen, what occurs together.

    python benchmarks/phantoms.py           # 6000 phantoms
    python benchmarks/phantoms.py --quick   # 1500

Prints, for each finding: its share, beside that in CheXpert's training split (uncertain ones count half); AUROC on
held-out patients of a logistic regression on thumbnails of 8 x 8 pixels, of boosted trees on trivial features (means,
deviations, quantiles, edges, thumbnails of 4 x 4) and of a logistic regression on the demo encoder's embedding; the
share of drawn ones that cannot be seen, since the picture with and without it differs by less than from one draw of the
noise to another. Then how far the phi coefficients of pairs of labels are from CheXpert's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.observations import OBSERVATIONS
from medsae_plugin.phantoms import Case, draw_case
from medsae_plugin.phantoms.cases import OPACITIES
from medsae_plugin.phantoms.chexpert import PHI, STATED, UNCERTAIN
from medsae_plugin.phantoms.draw import paint
from medsae_plugin.phantoms.exposure import expose
from medsae_plugin.phantoms.generate import sample_rows

SEED, SIZE = 40_000_000, 96
UNSEEN = 1.0  # a finding's change, over that from one draw of the noise to another, under which it cannot be seen


class Drawn(NamedTuple):
    """Phantoms of natural prevalence: images (n, size, size) uint8, labels (n, 14) bool, patients (n,), cases."""

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    cases: list[Case]


def draw(n: int, seed: int = SEED, size: int = SIZE) -> Drawn:
    rows = list(sample_rows(n, seed))
    images = np.stack([draw_case(row.case, size=size).image for row in rows])
    labels = np.array([[name in row.case.labels for name in OBSERVATIONS] for row in rows])
    return Drawn(images, labels, np.array([row.patient for row in rows]), [row.case for row in rows])


def cells(images: np.ndarray, n: int) -> np.ndarray:
    """The pictures' n x n cells: (images, n * n, pixels of a cell)."""
    count, size = images.shape[:2]
    tiles = images.reshape(count, n, size // n, n, size // n).swapaxes(2, 3)
    return tiles.reshape(count, n * n, -1).astype(float)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Thumbnails of 8 x 8 pixels: (images, 64)."""
    return cells(images, 8).mean(2)


def trivial_features(images: np.ndarray) -> np.ndarray:
    """Whole pictures' means, deviations, quantiles and edges, and those of 4 x 4 cells: (images, features)."""
    whole, tiles = images.reshape(len(images), -1).astype(float), cells(images, 4)
    down, across = np.gradient(images.astype(float), axis=(1, 2))
    edges = np.hypot(down, across)
    quantiles = np.quantile(whole, [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99], axis=1).T
    totals = np.stack([whole.mean(1), whole.std(1), edges.mean((1, 2)), edges.std((1, 2))], 1)
    return np.hstack([totals, quantiles, tiles.mean(2), tiles.std(2), cells(edges, 4).mean(2)])


@torch.no_grad()
def embeddings(encoder: HookedVisionEncoder, images: np.ndarray) -> np.ndarray:
    batches = np.array_split(images, max(1, len(images) // 64))
    return torch.cat([encoder(encoder.preprocess([*map(Image.fromarray, batch)])) for batch in batches]).numpy()


def probe(features: np.ndarray, drawn: Drawn, *, boosted: bool = False, seed: int = 0) -> np.ndarray:
    """AUROC of each observation on a third of the patients, fitted on the others; NaN where one class is missing."""
    (train, test), *_ = GroupShuffleSplit(1, test_size=1 / 3, random_state=seed).split(features, None, drawn.patients)
    found = np.full(len(OBSERVATIONS), np.nan)
    for i, y in enumerate(drawn.labels.T):
        if y[train].any() and y[test].any() and not y[train].all() and not y[test].all():
            model = (
                HistGradientBoostingClassifier(max_iter=60, learning_rate=0.08, max_leaf_nodes=8, random_state=seed)
                if boosted
                else make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=1000))
            )
            found[i] = roc_auc_score(y[test], model.fit(features[train], y[train]).predict_proba(features[test])[:, 1])
    return found


def visibility(case: Case, size: int = SIZE) -> dict[str, float]:
    """Each finding's change of the picture, over what two draws of the noise change where it shows.

    The change is the root mean square, over its mask, of the picture with and without the finding, everything else
    drawn the same; a Lung Opacity that stands for others is theirs.
    """
    canvas, masks, exposure = paint(case, size)
    picture = expose(canvas.density, canvas.grid, exposure).astype(float)
    again = expose(canvas.density, canvas.grid, replace(exposure, noise_seed=exposure.noise_seed + 1))
    found = {}
    for name, mask in masks.items():
        left = {other: severity for other, severity in case.findings.items() if other != name}
        if not mask.any():
            found[name] = 0.0
        elif name != "Lung Opacity" or not set(left) & set(OPACITIES):
            without = draw_case(replace(case, findings=left), size=size).image
            noise = np.sqrt(((picture - again)[mask] ** 2).mean())
            found[name] = float(np.sqrt(((picture - without)[mask] ** 2).mean()) / max(noise, 0.5))
    return found


def unseen(cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray]:
    """Of each observation: the share of its drawings that cannot be seen, and how many were drawn."""
    found = [visibility(case) for case in cases]
    values = [[ratios[name] for ratios in found if name in ratios] for name in OBSERVATIONS]
    return np.array([np.mean(np.less(v, UNSEEN)) if v else np.nan for v in values]), np.array([len(v) for v in values])


def tied() -> np.ndarray:
    """Pairs that logic ties, (14, 14) bool: No Finding with all, Lung Opacity with the opacities."""
    tie = np.eye(len(OBSERVATIONS), dtype=bool)
    tie[0] = tie[:, 0] = True
    opacities, parent = [OBSERVATIONS.index(name) for name in OPACITIES], OBSERVATIONS.index("Lung Opacity")
    tie[parent, opacities] = tie[opacities, parent] = True
    return tie


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1500 phantoms instead of 6000")
    given = parser.parse_args(arguments)
    n = 1500 if given.quick else 6000
    start = time.process_time()
    drawn = draw(n)
    print(f"{n} phantoms of {SIZE} pixels, seed {SEED}: {n / (time.process_time() - start):.0f} a second of one core")
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    columns = {
        "CheXpert": np.array([STATED[name] + UNCERTAIN[name] / 2 for name in OBSERVATIONS]),
        "share": drawn.labels.mean(0),
        "8 x 8": probe(thumbnails(drawn.images), drawn),
        "boosted": probe(trivial_features(drawn.images), drawn, boosted=True),
        "encoder": probe(embeddings(encoder, drawn.images), drawn),
    }
    columns["unseen"], columns["of"] = unseen(drawn.cases[: n // 8])
    print(f"{'':28}" + "".join(f"{name:>10}" for name in columns))
    for i, name in enumerate(OBSERVATIONS):
        print(f"{name:28}" + "".join(f"{values[i]:10.{0 if key == 'of' else 3}f}" for key, values in columns.items()))
    print(f"{'mean over findings':28}" + "".join(f"{np.nanmean(values[1:]):10.3f}" for values in columns.values()))
    off = np.abs(np.corrcoef(drawn.labels.T) - PHI)[~tied()]
    print(
        f"phi of {off.size // 2} pairs that no logic ties, from CheXpert's: {off.mean():.3f} mean, {off.max():.3f} most"
    )


if __name__ == "__main__":
    main()
