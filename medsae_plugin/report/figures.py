"""Figures of a run for papers: PNG, SVG or PDF, at a journal's column widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import make_folder, replacing
from medsae_plugin.report import figures_compared, figures_leaning, figures_localised, style
from medsae_plugin.report.sources import Run, ScoredSAE

FORMATS = ("png", "svg", "pdf")
_BESIDE = {"untrained": ("untrained SAE", "v", style.GREY), "neurons": ("raw neurons", "s", style.VERMILLION)}


def write_figures(run: Run, out: str | Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Draw every figure that the run has the data for; the same run gives the same files.

    Of each SAE: `observations`, r of every observation's top latent beside the baselines; `density`, how often latents
    fire; `training`, where `training.json` is at hand; `localisation` and `inside`, where `medsae localize` wrote into
    the evaluation's folder. Of a comparison: `visibility`, `pareto`, `likeness`, `flow`. Of what latents lean on
    (`medsae confounders` with the same `--out`): `adjusted`, `covariates`.

    Returns:
        The files.

    Raises:
        MedSAEError: matplotlib is not installed; an unknown format.
    """
    drawings: list[tuple[str, Callable[[], Any]]] = []
    for sae in run.saes:
        folder = sae.name.replace("/", "--")
        drawings += [
            (f"observations-{folder}", partial(observations, sae)),
            (f"density-{folder}", partial(density, sae)),
        ]
        if sae.training and len(sae.training.history) > 1:
            drawings.append((f"training-{folder}", partial(training, sae)))
        if sae.localised is not None:
            drawings += figures_localised.of(folder, sae.localised)
    if run.comparison is not None:
        drawings += figures_compared.of(run.comparison)
    if run.confounders is not None:
        drawings += figures_leaning.of(run.confounders)
    return draw(drawings, out, formats)


def draw(
    drawings: Sequence[tuple[str, Callable[[], Any]]], out: str | Path, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write figures into a folder, each by its name and what draws it; the files.

    Raises:
        MedSAEError: matplotlib is not installed; an unknown format.
    """
    if unknown := [f for f in formats if f not in FORMATS] or not formats:
        raise MedSAEError(f"{unknown or 'no'} format; there are {', '.join(FORMATS)}")
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MedSAEError("figures need matplotlib: pip install 'medsae-plugin[figures]'") from None
    matplotlib.use("Agg")
    out, written = make_folder(Path(out)), []
    with matplotlib.rc_context(style.RC):
        for name, made_by in drawings:
            figure = made_by()
            for kind in formats:
                path = out / f"{name}.{kind}"
                with replacing(path) as temporary:
                    figure.savefig(temporary, format=kind, metadata=_undated(kind))
                written.append(path)
            matplotlib.pyplot.close(figure)
    return written


def observations(sae: ScoredSAE) -> Any:
    """r of each observation's top latent with its interval, beside the baselines, the raw neurons and chance."""
    import matplotlib.pyplot as plt

    rows = sae.scores.observations
    others = [*sae.scores.baselines, sae.scores.neurons]
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 0.19 * len(rows) + 0.85))
    for y, o in enumerate(rows):
        r, low, high, null = (o.value(name) for name in ("r", "r_low", "r_high", "r_chance"))
        if null is not None:
            axes.barh(y, null, height=0.62, color=style.LIGHT, label="chance, 95%" if y == 0 else None)
        axes.axhline(y, color=style.LIGHT, linewidth=0.4, zorder=0)
        for k, other in enumerate(others):
            name, marker, colour = _BESIDE.get(other.kind) or (other.kind, style.MARKERS[k % 7], style.COLOURS[k % 7])
            if (theirs := other.observations[y].value("r")) is not None:
                axes.plot(theirs, y, marker, color="white", mec=colour, ms=3.4, mew=0.9, label=name if y == 0 else None)
        if r is not None:
            if low is not None:
                axes.plot([low, high], [y, y], color=style.BLUE, linewidth=1.3)
            axes.plot(r, y, "o", color=style.BLUE, ms=4, label="SAE, 95% interval if any" if y == 0 else None)
    axes.set_yticks(range(len(rows)), [o.label for o in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel("Pearson's r of the top latent, held-out patients")
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure


def density(sae: ScoredSAE) -> Any:
    """How often latents fire."""
    import matplotlib.pyplot as plt

    from medsae_plugin.scores.metrics import DENSE, DENSITY_EDGES

    counts = sae.scores.density_histogram
    dead = (sae.scores.d_sae or 0) - sum(counts)
    figure, axes = plt.subplots(figsize=(style.ONE_COLUMN, 2.0))
    shares = 10**DENSITY_EDGES
    colours = [style.VERMILLION if low >= DENSE * 0.999 else style.BLUE for low in shares[:-1]]
    axes.bar(shares[:-1], counts, width=shares[1:] - shares[:-1], align="edge", color=colours, ec="white", lw=0.4)
    axes.set_xscale("log")
    first = next((k for k, n in enumerate(counts) if n), 12)
    axes.set_xlim(shares[min(first, 12)] * 0.8, 1.05)
    axes.set_xlabel(f"share of images on which a latent fires (dead: {dead} of {sae.scores.d_sae})")
    axes.set_ylabel("latents")
    axes.axvline(DENSE, color=style.GREY, linewidth=0.7, linestyle=(0, (3, 2)))
    axes.text(DENSE * 1.08, axes.get_ylim()[1], "dense", va="top", color=style.GREY, fontsize=6.5)
    return figure


def training(sae: ScoredSAE) -> Any:
    """Explained variance, L0 and dead latents on the validation split during training."""
    import matplotlib.pyplot as plt

    assert sae.training is not None
    history = sae.training.history
    figure, axes = plt.subplots(1, 3, figsize=(style.TWO_COLUMNS, 1.75))
    titles = {"explained_variance": "explained variance", "l0": "L0", "dead": "share of dead latents"}
    for letter, axis, (key, title) in zip("abc", axes, titles.items(), strict=True):
        told = [(note["step"], note[key]) for note in history if note.get(key) is not None]
        axis.plot(*zip(*told, strict=True), color=style.BLUE, marker="o" if len(told) < 30 else None, ms=2.5)
        axis.set_xlabel("training step")
        axis.set_ylabel(title)
        axis.set_title(letter)
        axis.margins(y=0.12)
        axis.ticklabel_format(useOffset=False)
    return figure


def _undated(kind: str) -> dict[str, Any]:
    """No date in a file, so that the same run gives the same file."""
    return {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
