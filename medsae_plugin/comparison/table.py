"""A comparison as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medsae_plugin.scores.images import ROLES
from medsae_plugin.scores.models import NOT_SPARSE, Split, is_not_sparse
from medsae_plugin.scores.registry import METRICS, shown
from medsae_plugin.scores.table import without_rows
from medsae_plugin.text import aligned, fixed

_HEADED = ("mean_top_r", "mean_top_entropy", "mean_monosemanticity")
_JUDGED = "mean_monosemanticity_judge"


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """The SAEs and neurons, the real differences, visibility by layer, replicates and flow, as tables."""
    report = comparison["report"]
    crossed = f"each of {report['folds']} folds, in turn, of " if report.get("folds") else ""
    head = (
        f"Every figure on {crossed}{report['split']} ({report['images']} images, {report['patients']} patients), with "
        "95% intervals over patients."
    )
    if report.get("left_out"):
        head += f" Left out: {report['left_out']} patients that an SAE was trained on."
    roles = [role for role in ROLES if role == "report" or not crossed]
    head = "\n".join([head, *without_rows(*(Split.model_validate(comparison[role]) for role in roles))])
    parts = [head, _saes(comparison), _differences(comparison), _visibility(comparison)]
    parts += [_localisation(comparison)]
    parts += [_stability(comparison), _flows(comparison)]
    return "\n\n".join(part for part in parts if part)


def _saes(comparison: Mapping[str, Any]) -> str:
    more = [
        m
        for m in shown("comparison", "sae")
        if m.name not in _HEADED
        and (m.needs not in ("judge", "home") or any(e.get(m.name) is not None for e in comparison["saes"]))
    ]
    titles = ("by the judge" if m.name == _JUDGED else m.title for m in more)
    heads = ["explained", "L0", "dead", "mean top r", "mean top H", "monosem.", *titles]
    rows = [["", *heads, "rank", "front"]]
    for e in comparison["saes"]:
        rows.append(
            [
                e["name"],
                fixed(e["explained_variance"], 3),
                fixed(e["l0"], 1) + ("!" if is_not_sparse(e["l0"], e["d_sae"]) else ""),
                "-" if e["dead"] is None else f"{e['dead']:.0%}",
                _with_interval(e, "mean_top_r"),
                _with_interval(e, "mean_top_entropy"),
                fixed(e["mean_monosemanticity"], 3),
                *(m.form(None if (value := e.get(m.name)) is None else float(value)) for m in more),
                fixed(e.get("mean_rank"), 2),
                "*" if e.get("pareto") else "",
            ]
        )
    note = "front: on the Pareto front of explained variance and L0 among the SAEs of its layer."
    why = {e["no_interval"] for e in comparison["saes"] if e.get("no_interval")}
    notes = [note]
    if any(is_not_sparse(e["l0"], e["d_sae"]) for e in comparison["saes"]):
        notes.append(f"!: not sparse, {NOT_SPARSE:.0%} of the latents or more fire on a row.")
    if any(e.get("mean_top_r_home") is not None for e in comparison["saes"]):
        notes.append("at home: on other patients of the hospital that latents were chosen at; lost: that, less r here.")
    notes += [*(f"means without an interval: {one}." for one in sorted(why)), *_winner(comparison)]
    notes += [f"{e['name']}: {e['headline']}" for e in comparison["saes"] if e.get("headline")]
    return "\n".join([*aligned(rows, rule_after=(1,)), *notes])


def _localisation(comparison: Mapping[str, Any]) -> str:
    """Where the top units of each layer look; nothing without regions."""
    found = comparison.get("localisation") or []
    if not found:
        return ""
    names = list(found[0]["figures"])
    rows = [["", "layer", "findings", *names]]
    for e in found:
        cells = [fixed(e["figures"][n]) + (f" ({e['chance'][n]:.2f})" if e["chance"][n] is not None else "")
                 for n in names]  # fmt: skip
        rows.append([e["name"], e["hook"], str(e["findings"]), *cells])
    title = (
        "Where each finding's top unit looks, means over findings; in brackets with other patients' regions (chance)"
    )
    return "\n".join([title, *aligned(rows, rule_after=(1,))])


def _winner(comparison: Mapping[str, Any]) -> list[str]:
    """On which patients the ranks, and so the best SAE, were chosen."""
    best, split, report = comparison.get("best"), comparison.get("ranked_on"), comparison["report"]["split"]
    if best is None or sum(e["kind"] == "sae" for e in comparison["saes"]) < 2:
        return []
    if split == report:
        return [
            f"rank, and so the best, {best}: chosen on {report}, where it is reported, so its figures are optimistic; "
            "a split val of other patients would choose it apart."
        ]
    return [f"rank, and so the best, {best}: chosen on {split}, other patients than those of {report}."]


def _differences(comparison: Mapping[str, Any]) -> str:
    kept = [d for d in comparison["differences"] if d["figure"] == "mean_top_r"]
    real = [d for d in kept if d["fdr"] is not None and d["fdr"] < 0.05]
    if not kept:
        return ""
    rows = [["mean top r of", "less that of", "difference", "[95%]", "fdr", "interval of"]]
    for d in real:
        between = f"[{d['low']:+.3f}, {d['high']:+.3f}]"
        rows.append(
            [
                d["a"],
                d["b"],
                f"{d['difference']:+.3f}",
                between,
                METRICS["fdr"].form(d["fdr"]),
                d.get("over", "patients"),
            ]
        )
    tested = [d for d in kept if d["fdr"] is not None]
    title = f"Differences of mean top r that are real (fdr < 0.05): {len(real)} of {len(tested)} pairs of recipes"
    notes = [
        f"{len(kept) - len(tested)} more pairs are not tested: {why}."
        for why in {d.get("no_interval") for d in kept if d["fdr"] is None}
    ]
    if any(d.get("over") == "patients" for d in kept):
        notes.append(
            "interval of patients: of patients only, one seed a recipe; another seed may differ by more. Two seeds or "
            "more of each recipe take seeds in."
        )
    return "\n".join([title, *(aligned(rows, rule_after=(1,)) if real else []), *notes])


def _visibility(comparison: Mapping[str, Any]) -> str:
    layers = comparison["layers"]
    several = len(comparison["encoders"]) > 1
    names = [f"{x['encoder']}/{x['hook']}" if several else x["hook"] for x in layers]
    rows = [["observation", *(f"({k + 1})" for k in range(len(layers)))]]
    for entry in comparison["visibility"]:
        cells = []
        for at, x in enumerate(entry["layers"]):
            latent = "" if x["latent"] is None else f" {fixed(x['latent_r'], 2)} #{x['latent']}"
            cells.append(("*" if at in entry["visible_from"] else "") + fixed(x["auroc"], 2) + latent)
        rows.append([entry["label"], *cells])
    share = comparison["thresholds"]["visible"]
    title = (
        "AUROC of a linear probe at each layer; r and number of the layer's best latent. *: the first layer with "
        f"{share:.0%} of the best layer's AUROC above 0.5"
    )
    return "\n".join([title, *aligned(rows, rule_after=(1,)), *(f"({k + 1}) {name}" for k, name in enumerate(names))])


def _stability(comparison: Mapping[str, Any]) -> str:
    """Of SAEs that differ in their seed alone: whether they find the same latents, and the spread of their means."""
    if not comparison["stability"]:
        return ""
    figures = ("mean_max_correlation", "mean_assigned_correlation", "mean_max_cosine")
    heads = ["mean max r", "mean r one to one", "mean max |cosine|"]
    rows = [["recipe", *heads, f"share with r >= {comparison['thresholds']['stable']}"]]
    for s in comparison["stability"]:
        share = s["share_stable"]
        rows.append([_recipe(s), *(fixed(s.get(key), 2) for key in figures), "-" if share is None else f"{share:.0%}"])
    title = "Stability across seeds (latents matched by correlation over images; |cosine| of decoder directions)"
    return "\n".join([title, *aligned(rows, rule_after=(1,)), "", *_spread(comparison)])


def _spread(comparison: Mapping[str, Any]) -> list[str]:
    words = {"explained_variance": "explained", "l0": "L0", "dead": "dead"}
    words |= {m.name: m.title for m in shown("comparison", "sae")}
    if not any(s.get("means", {}).get(_JUDGED) for s in comparison["stability"]):
        words.pop(_JUDGED)
    rows = [["recipe", *words.values()]]
    for s in comparison["stability"]:
        means = s.get("means", {})
        cells = [means.get(name) for name in words]
        rows.append([_recipe(s), *("-" if x is None else f"{x['mean']:.3f} +- {x['sd']:.3f}" for x in cells)])
    return ["Over seeds, mean +- standard deviation", *aligned(rows, rule_after=(1,))]


def _recipe(replicates: Mapping[str, Any]) -> str:
    return replicates.get("recipe") or " ".join(replicates["saes"])


def _flows(comparison: Mapping[str, Any]) -> str:
    if not comparison["flows"]:
        return ""
    fates, origins = ("continues", "splits", "merges", "dies"), ("continued", "split off", "merged", "born")
    rows = [["from", "to", *fates, *origins]]
    for f in comparison["flows"]:
        counts = [str(f["fates"][x]) for x in fates] + [str(f["origins"][x]) for x in origins]
        rows.append([f["a"], f["b"], *counts])
    title = f"What becomes of latents from layer to layer (linked where r >= {comparison['thresholds']['link']})"
    return "\n".join([title, *aligned(rows, rule_after=(1,))])


def _with_interval(entry: Mapping[str, Any], figure: str) -> str:
    low, high = entry[f"{figure}_low"], entry[f"{figure}_high"]
    between = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return fixed(entry[figure], 2) + between
