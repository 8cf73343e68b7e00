"""The model card of a published repository, with held-out figures as its `model-index`."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin._version import __version__
from medsae_plugin.naming.names import Names
from medsae_plugin.release.contents import Published
from medsae_plugin.scores.models import Figures
from medsae_plugin.scores.registry import METRICS, Metric, shown
from medsae_plugin.scores.table import MEANS, SHOWN_FIDELITY, headline_words

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_TEMPLATE = Path(__file__).with_name("model_card.md")
# Figures that the Hub knows by names of its own.
_HUB_METRICS = {"mean_top_r": "pearsonr", "mean_top_entropy": "entropy", "mean_monosemanticity": "monosemanticity"}


def write_card(
    saes: Sequence[Published],
    repo_id: str,
    *,
    licence: str,
    data: str | None,
    revision: str | None,
    small: int,
) -> str:
    """The text of `README.md`.

    Args:
        licence: a licence's id on the Hub, such as `mit`, or any text.
        data: what the images were, in words; None says that it is not stated.
        small: the threshold below which counts are not published.
    """
    from huggingface_hub import ModelCard, ModelCardData

    metadata, evaluation = saes[0].config.metadata, saes[0].evaluation
    encoder = str(metadata.model_name or "unknown")
    is_id = re.fullmatch(r"[A-Za-z0-9.+-]+", licence)
    card_data = ModelCardData(
        license=licence.lower() if is_id else "other",
        license_name=None if is_id else "see-below",
        library_name="saelens",
        tags=["sparse-autoencoder", "interpretability", "medical-imaging", "medsae"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=[result for sae in saes for result in _eval_results(sae, data)] or None,
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(_TEMPLATE),
        title=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        revision=revision,
        encoder=_escaped(encoder),
        encoder_sha256=metadata.encoder_sha256,
        data=_escaped(data or "not stated"),
        licence=_escaped(licence),
        select=evaluation.select,
        report=evaluation.report,
        saes=[_for_template(sae) for sae in saes],
        named=[f"`{sae.name}`" for sae in saes if (sae.folder / Names.FILE).is_file()],
        small=small,
        version=__version__,
    )
    return str(card).rstrip() + "\n"


def _eval_results(sae: Published, data: str | None) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    figures = [(m.name, m.title + (f" ({m.unit})" if m.unit else "")) for m in shown("card", "sae")]
    figures += [(name, title) for name, title, _ in SHOWN_FIDELITY]
    return [
        EvalResult(
            task_type="feature-extraction",
            task_name="Sparse autoencoding",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", (data or "chest-radiographs").lower()).strip("-"),
            dataset_name=data or "Chest radiographs (not stated)",
            dataset_split=sae.evaluation.report.split,
            metric_type=_HUB_METRICS.get(name, name),
            metric_name=f"{sae.name}: {title}",
            metric_value=round(value, 4),
        )
        for name, title in figures
        if (value := sae.scores.value(name)) is not None
    ]


def _for_template(sae: Published) -> dict[str, Any]:
    scores, columns = sae.scores, [m for m in shown("card") if m.per != "sae"]
    rows = [
        [
            _escaped(o.label),
            str(o.positives),
            "-" if o.latent is None else str(o.latent),
            *(_figure(m, o) for m in columns),
            *(_figure(METRICS["r"], other.of_label(o.label), interval=False) for other in scores.beside),
        ]
        for o in scores.observations
    ]
    means = [_figure(METRICS[MEANS[m.name]], scores) if m.name in MEANS else "" for m in columns]
    others = [_figure(METRICS["mean_top_r"], other, interval=False) for other in scores.beside]
    return {
        "name": sae.name,
        "hook": scores.hook,
        "held_out_from": _escaped(scores.held_out_from or ""),
        "architecture": sae.config.architecture(),
        "d_in": scores.d_in,
        "d_sae": scores.d_sae,
        "training": _training(sae),
        "not_sparse": scores.not_sparse,
        "fidelity": {
            name: "-" if (value := scores.value(name)) is None else form.format(value)
            for name, _, form in SHOWN_FIDELITY
        },
        "columns": ["images with it", "latent", *(m.title for m in columns), *(other.kind for other in scores.beside)],
        "headline": _escaped(headline_words(scores)),
        "rows": [*rows, ["mean", "", "", *means, *others]],
    }


def _training(sae: Published) -> str:
    """How an SAE was trained, in a line."""
    metadata = sae.config.metadata
    if sae.training is None:
        origin = metadata.imported_from
        return f"imported from a {_escaped(str(origin))} checkpoint." if origin else "not recorded."
    spec, config = sae.training.sae, sae.training.training
    options = "".join(f", {k} = {v}" for k, v in spec.options.items())
    return _escaped(
        f"{spec.architecture}{options}, expansion {spec.expansion:g}, normalisation {spec.normalize}, on "
        f"{metadata.training_rows} activations (positions: {metadata.positions}) of "
        f"{metadata.training_images} images of {metadata.training_patients} patients; "
        f"{config.total_training_samples} samples in batches of {config.batch_size}, learning rate "
        f"{spec.lr or config.lr:g}, seed {spec.seed}."
    )


def _figure(metric: Metric, of: Figures | None, interval: bool = True) -> str:
    """A figure, and the interval that it has."""
    value = None if of is None else of.value(metric.name)
    if of is None or not interval or not metric.low:
        return metric.form(value)
    low, high = of.value(metric.low), of.value(metric.high)
    return metric.form(value) + ("" if low is None or high is None else f" [{metric.form(low)}, {metric.form(high)}]")


def _escaped(text: str) -> str:
    """Text of a file for a Markdown table, where HTML works too."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
