"""From what a comparison finds to what it says: `Comparison`, and tidy tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from medsae_plugin.comparison.cka import CKASums
from medsae_plugin.comparison.differences import LeftOut, Replicates
from medsae_plugin.comparison.entries import Compared
from medsae_plugin.comparison.flow import LINK, Flow
from medsae_plugin.comparison.matching import STABLE, DecoderCosines, Matching, stability
from medsae_plugin.comparison.results import Comparison
from medsae_plugin.comparison.visibility import VISIBLE, Visibility, visible_from
from medsae_plugin.comparison.winner import Ranking
from medsae_plugin.scores.models import FIDELITY, Observation
from medsae_plugin.scores.registry import METRICS, number, shown
from medsae_plugin.scores.results import Evaluation
from medsae_plugin.scores.table import headline_words
from medsae_plugin.statistics.intervals import t_interval

FIGURES = ("mean_top_r", "mean_top_entropy", "explained_variance")


@dataclass(frozen=True)
class Layer:
    """A hook of an encoder, and what a linear probe sees there."""

    encoder: str
    hook: str
    d: int
    visibility: Visibility


@dataclass(frozen=True)
class Pair:
    """Two SAEs, the earlier layer's first; `cosines` where they stand in one space, `links` where followed."""

    a: Compared
    b: Compared
    forward: Matching
    back: Matching
    cosines: DecoderCosines | None
    links: Flow | None


@dataclass(frozen=True)
class Found:
    """All that is known of the compared SAEs. evaluation: of one of the encoders, for what all of them share."""

    evaluation: Evaluation
    encoders: list[dict[str, Any]]
    label_names: tuple[str, ...]
    compared: list[Compared]
    recipes: list[Replicates]
    left_out: list[LeftOut]
    layers: list[Layer]
    cka: CKASums
    pairs: list[Pair]
    differences: pd.DataFrame
    ranking: Ranking


def summarise(found: Found) -> Comparison:
    """What `comparison.json` says; undefined figures are null."""
    saes = [_entry(c, r) for c, r in zip(found.compared, found.left_out, strict=True)]
    trained = [e for e in saes if e["kind"] == "sae"]
    ranks = found.ranking.ranks
    for entry in trained:
        entry["mean_rank"] = ranks[entry["name"]]
        entry["val"] = found.ranking.figures.get(entry["name"])
    for entry, best in zip(trained, pareto(trained), strict=True):
        entry["pareto"] = best
    differences = found.differences
    whole = differences[differences["label"] == ""].drop(columns="label")
    shared = {key: getattr(found.evaluation, key) for key in ("aggregate", "select", "report", "resampling")}
    return Comparison.model_validate(
        {
            **shared,
            "encoders": found.encoders,
            "thresholds": {"link": LINK, "stable": STABLE, "visible": VISIBLE},
            "layers": [{"encoder": x.encoder, "hook": x.hook, "d": x.d} for x in found.layers],
            "ranked_on": found.ranking.split,
            "best": min((rank, name) for name, rank in ranks.items())[1] if None not in ranks.values() else None,
            "saes": saes,
            "visibility": _visibility(found),
            "cka": _matrix(found.cka.cka()),
            "cka_debiased": _matrix(found.cka.debiased()),
            "matching": [_matching(pair) for pair in found.pairs],
            "stability": [_stability(found, *replicated) for replicated in _seeds(found)],
            "flows": [
                {"a": p.a.name, "b": p.b.name, "links": len(p.links.r), **p.links.counts()}
                for p in found.pairs
                if p.links
            ],
            "differences": [{k: _plain(v) for k, v in row.items()} for row in whole.to_dict("records")],
        }
    )


def tables(found: Found, comparison: Comparison) -> dict[str, pd.DataFrame]:
    """The tidy tables, by the names of their files."""
    content = comparison.to_json()
    flat = [{k: v for k, v in entry.items() if not isinstance(v, (dict, list))} for entry in content["saes"]]
    observations = [
        {
            "name": c.name,
            "kind": c.units.kind,
            "encoder": c.source.label,
            "hook": c.hook,
            **o.model_dump(),
            "latent": None if o.latent is None else str(o.latent),
        }
        for c in found.compared
        for o in c.scores.observations
    ]
    visibility = [
        {"label": entry["label"], "visible_from": at in entry["visible_from"], **row}
        for entry in content["visibility"]
        for at, row in enumerate(entry["layers"])
    ]
    cka = [
        {
            "a": _layer_name(a),
            "b": _layer_name(b),
            "cka": comparison.cka[i][j],
            "debiased": comparison.cka_debiased[i][j],
        }
        for i, a in enumerate(found.layers)
        for j, b in enumerate(found.layers)
    ]
    return {
        "saes": pd.DataFrame(flat),
        "observations": pd.DataFrame(observations),
        "visibility": pd.DataFrame(visibility),
        "cka": pd.DataFrame(cka),
        "latents": _latents(found),
        "matches": _concat([_matches(p, flip) for p in found.pairs for flip in (False, True)]),
        "links": _concat([_links(p) for p in found.pairs if p.links]),
        "differences": found.differences,
    }


def pareto(saes: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether an SAE is on the front of fidelity and sparsity among those of its layer: no other explains as much of
    the variance (or more) with an L0 as small (or smaller), one of the two strictly."""
    points = [(s["encoder"], s["hook"], s["explained_variance"], s["l0"]) for s in saes]
    return [
        v is not None
        and not any(
            (e2, h2) == (e, h) and v2 is not None and v2 >= v and l2 <= l0 and (v2, l2) != (v, l0)
            for e2, h2, v2, l2 in points
        )
        for e, h, v, l0 in points
    ]


def _entry(compared: Compared, left_out: LeftOut) -> dict[str, Any]:
    scores = compared.scores
    kept = ("kind", "hook", "architecture", "d_in", "d_sae")
    entry: dict[str, Any] = {"name": compared.name, "encoder": compared.source.label, "seed": compared.seed}
    entry |= {key: getattr(scores, key) for key in kept}
    entry |= {key: scores.value(key) for key in FIDELITY}
    entry |= {m.name: getattr(scores, m.name, None) for m in METRICS.values() if m.per == "sae"}
    for name in FIGURES:
        low, high = math.nan, math.nan
        if name in left_out.figures and name not in left_out.no_interval:
            low, high = t_interval(left_out.points[name], left_out.figures[name], left_out.degrees[name])
        entry |= {f"{name}_low": number(low), f"{name}_high": number(high)}
    # Its own: of Fisher's z.
    entry |= {name: scores.value(name) for name in ("mean_top_r_low", "mean_top_r_high")}
    entry["no_interval"] = scores.no_interval
    if compared.is_sae:
        entry["headline"] = headline_words(scores)
    entry["top"] = [_top(o) for o in scores.observations]
    return entry


def _top(o: Observation) -> dict[str, Any]:
    figures = [name for m in shown("comparison") if m.per != "sae" for name in (m.name, m.low, m.high) if name]
    told = {"label": o.label, "latent": o.latent, "no_interval": o.no_interval}
    return told | {name: o.value(name) for name in figures}


def _visibility(found: Found) -> list[dict[str, Any]]:
    """Of each label its AUROC and best latent at every layer, and each encoder's first layer where it is visible."""
    layers = found.layers
    best: dict[tuple[str, str], list[Compared]] = {}
    for s in found.compared:
        if s.is_sae:
            best.setdefault(s.layer, []).append(s)
    made = []
    for c, label in enumerate(found.label_names):
        auroc, low = (np.array([getattr(x.visibility, key)[c] for x in layers]) for key in ("auroc", "low"))
        first = []
        for encoder in dict.fromkeys(x.encoder for x in layers):
            places = np.array([k for k, x in enumerate(layers) if x.encoder == encoder])
            if (place := visible_from(auroc[places], low[places])) is not None:
                first.append(int(places[place]))
        rows = []
        for x in layers:
            v = x.visibility
            rows.append(
                {
                    "encoder": x.encoder,
                    "hook": x.hook,
                    "auroc": number(v.auroc[c]),
                    "low": number(v.low[c]),
                    "high": number(v.high[c]),
                    "ridge": number(v.ridge[c]),
                    "no_interval": v.no_interval[c],
                    **_best_latent(best.get((x.encoder, x.hook), []), c),
                }
            )
        made.append({"label": label, "visible_from": first, "layers": rows})
    return made


def _best_latent(saes: Sequence[Compared], c: int) -> dict[str, Any]:
    """The layer's SAE whose top latent has the largest r on `select`, and that latent's figures on `report`."""
    told = [(r, s) for s in saes if (r := s.scores.observations[c].value("r_select")) is not None]
    if not told:
        return {"sae": None, "latent": None, "latent_r": None, "latent_auroc": None}
    _, chosen = max(told, key=lambda pair: pair[0])
    o = chosen.scores.observations[c]
    return {"sae": chosen.name, "latent": o.latent, "latent_r": o.value("r"), "latent_auroc": o.value("auroc")}


def _matching(pair: Pair) -> dict[str, Any]:
    figures = {
        "mean_max_correlation": pair.forward.mean_max_correlation,
        "mean_max_correlation_back": pair.back.mean_max_correlation,
        "mean_assigned_correlation": pair.forward.mean_assigned_correlation,
        "mean_max_cosine": pair.cosines.mean_max if pair.cosines else math.nan,
        "mean_max_cosine_back": pair.cosines.mean_max_back if pair.cosines else math.nan,
    }
    return {"a": pair.a.name, "b": pair.b.name, **{name: number(value) for name, value in figures.items()}}


class _Seeds(NamedTuple):
    """SAEs of one layer and recipe that differ in their seed alone; of each its matchings and cosines with the others.

    cosines: `(others, latents)`, of each latent the largest |cosine| of its decoder direction with another seed's.
    """

    recipe: Replicates
    matchings: dict[str, list[Matching]]
    cosines: dict[str, np.ndarray]


def _seeds(found: Found) -> list[_Seeds]:
    made = []
    for recipe in found.recipes:
        if len(recipe.places) < 2:
            continue
        names = [found.compared[k].name for k in recipe.places]
        matchings: dict[str, list[Matching]] = {name: [] for name in names}
        cosines: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for pair in found.pairs:
            if pair.a.name in names and pair.b.name in names:
                matchings[pair.a.name].append(pair.forward)
                matchings[pair.b.name].append(pair.back)
                assert pair.cosines is not None  # they stand at one layer
                cosines[pair.a.name].append(pair.cosines.largest)
                cosines[pair.b.name].append(pair.cosines.largest_back)
        made.append(_Seeds(recipe, matchings, {name: np.stack(of) for name, of in cosines.items()}))
    return made


def _stability(
    found: Found, recipe: Replicates, matchings: Mapping[str, Sequence[Matching]], cosines: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    every = [m for of_sae in matchings.values() for m in of_sae]
    scores = [found.compared[k].scores for k in recipe.places]
    names = [*FIDELITY, *(m.name for m in METRICS.values() if m.per == "sae" and m.better)]
    values = {name: [v for s in scores if (v := s.value(name)) is not None] for name in names}
    return {
        "recipe": recipe.name,
        "saes": list(matchings),
        "mean_max_correlation": number(float(np.mean([m.mean_max_correlation for m in every]))),
        "mean_assigned_correlation": number(float(np.mean([m.mean_assigned_correlation for m in every]))),
        "share_stable": number(float(np.mean([m.share_stable for m in every]))),
        "mean_max_cosine": number(float(np.mean([c.mean() for c in cosines.values()]))),
        "means": {name: _spread(v) for name, v in values.items() if len(v) == len(scores)},
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Of a figure of each seed the mean and the standard deviation (n - 1)."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}


def _latents(found: Found) -> pd.DataFrame:
    """One row a latent: its stability across seeds, by what it fires on and by its decoder direction, its fate in the
    next layer, its origin in the one before."""
    replicated = _seeds(found)
    stable = {name: stability(m) for one in replicated for name, m in one.matchings.items()}
    cosine = {name: c.mean(0) for one in replicated for name, c in one.cosines.items()}
    fates = {p.a.name: p.links.fates for p in found.pairs if p.links}
    origins = {p.b.name: p.links.origins for p in found.pairs if p.links}
    frames = []
    for s in found.compared:
        if s.is_sae:
            n = s.matrix.n_latents
            columns: dict[str, Any] = {"name": s.name, "latent": np.arange(n), "stability": stable.get(s.name, np.nan)}
            columns["decoder_stability"] = cosine.get(s.name, np.nan)
            columns |= {"fate": fates.get(s.name), "origin": origins.get(s.name)}
            frames.append(pd.DataFrame(columns))
    return _concat(frames)


def _matches(pair: Pair, flip: bool) -> pd.DataFrame:
    """One row a latent that fires often enough: its partners in the other SAE."""
    a, b, m = (pair.b, pair.a, pair.back) if flip else (pair.a, pair.b, pair.forward)
    latents = np.flatnonzero(m.best >= 0)
    cosine = np.full(len(m.best), np.nan)
    if pair.cosines:
        cosine = pair.cosines.assigned_back if flip else pair.cosines.assigned
    columns = {"best": m.best, "best_r": m.best_r, "assigned": m.assigned, "assigned_r": m.assigned_r}
    frame = pd.DataFrame({"latent": np.arange(len(m.best)), **columns, "assigned_cosine": cosine}).iloc[latents]
    return frame.assign(a=a.name, b=b.name)[["a", "b", *frame.columns]]


def _links(pair: Pair) -> pd.DataFrame:
    assert pair.links is not None
    return pd.DataFrame(
        {
            "a": pair.a.name,
            "b": pair.b.name,
            "source": pair.links.sources,
            "target": pair.links.targets,
            "r": pair.links.r,
        }
    )


def _concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _layer_name(layer: Layer) -> str:
    return f"{layer.encoder}/{layer.hook}"


def _matrix(values: np.ndarray) -> list[list[float | None]]:
    return [[number(x) for x in row] for row in values]


def _plain(value: Any) -> Any:
    return number(value) if isinstance(value, float) else value
