"""The model card of a published repository, with held-out figures as its `model-index`."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsae_plugin._version import __version__
from medsae_plugin.release.contents import NAMES, Published

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_TEMPLATE = Path(__file__).with_name("model_card.md")
# Of an SAE's entry in metrics.json: where a figure is, its name, and its id among the Hub's metrics.
_FIGURES = (
    ("mean_top_r", "mean r of the observations' top latents", "pearsonr"),
    ("mean_top_entropy", "mean entropy of the observations' top latents (nats)", "entropy"),
    ("mean_monosemanticity", "mean monosemanticity score of the live latents", "monosemanticity"),
    ("explained_variance", "explained variance", "explained_variance"),
    ("l0", "L0", "l0"),
)


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

    metadata, metrics = saes[0].metadata, saes[0].metrics
    encoder = str(metadata.get("model_name", "unknown"))
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
        encoder_sha256=metadata.get("encoder_sha256"),
        data=_escaped(data or "not stated"),
        licence=_escaped(licence),
        select=metrics["select"],
        report=metrics["report"],
        saes=[_for_template(sae) for sae in saes],
        named=[f"`{sae.name}`" for sae in saes if (sae.folder / NAMES).is_file()],
        small=small,
        version=__version__,
    )
    return str(card).rstrip() + "\n"


def _eval_results(sae: Published, data: str | None) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    scores = {**(sae.scores.get("fidelity") or {}), **sae.scores}
    return [
        EvalResult(
            task_type="feature-extraction",
            task_name="Sparse autoencoding",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", (data or "chest-radiographs").lower()).strip("-"),
            dataset_name=data or "Chest radiographs (not stated)",
            dataset_split=sae.metrics["report"]["split"],
            metric_type=kind,
            metric_name=f"{sae.name}: {name}",
            metric_value=round(scores[key], 4),
        )
        for key, name, kind in _FIGURES
        if scores.get(key) is not None
    ]


def _for_template(sae: Published) -> dict[str, Any]:
    fidelity = sae.scores.get("fidelity") or {}
    beside = [{o["label"]: o for o in sae.baseline(kind).get("observations", [])} for kind in ("neurons", "untrained")]
    rows = [
        [
            _escaped(o["label"]),
            str(o["positives"]),
            "-" if o["latent"] is None else str(o["latent"]),
            f"{_figure(o['r'])}{_interval(o.get('r_low'), o.get('r_high'))}",
            _figure(o.get("r_null")),
            _figure(o["entropy"]),
            _figure(o.get("auroc")),
            *(_figure(others.get(o["label"], {}).get("r")) for others in beside),
        ]
        for o in sae.scores["observations"]
    ]
    mean = _figure(sae.scores.get("mean_top_r")) + _interval(*(sae.scores.get("mean_top_r_interval") or (None, None)))
    others = [_figure(sae.baseline(kind).get("mean_top_r")) for kind in ("neurons", "untrained")]
    return {
        "name": sae.name,
        "hook": sae.metadata.get("hook_name"),
        "architecture": sae.config["architecture"],
        "d_in": sae.config["d_in"],
        "d_sae": sae.config["d_sae"],
        "training": _training(sae),
        "explained_variance": _figure(fidelity.get("explained_variance"), ".3f"),
        "l0": _figure(fidelity.get("l0"), ".1f"),
        "dead": _figure(fidelity.get("dead"), ".1%"),
        "rows": [*rows, ["mean", "", "", mean, "", _figure(sae.scores.get("mean_top_entropy")), "", *others]],
    }


def _training(sae: Published) -> str:
    """How an SAE was trained, in a line."""
    metadata = sae.metadata
    if sae.training is None:
        origin = metadata.get("imported_from")
        return f"imported from a {_escaped(str(origin))} checkpoint." if origin else "not recorded."
    spec, config = sae.training["sae"], sae.training["training"]
    options = "".join(f", {k} = {v}" for k, v in spec["options"].items())
    return _escaped(
        f"{spec['architecture']}{options}, expansion {spec['expansion']:g}, normalisation {spec['normalize']}, on "
        f"{metadata.get('training_rows')} activations (positions: {metadata.get('positions')}) of "
        f"{metadata.get('training_images')} images of {metadata.get('training_patients')} patients; "
        f"{config['total_training_samples']} samples in batches of {config['batch_size']}, learning rate "
        f"{config['lr']:g}, seed {spec['seed']}."
    )


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _figure(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _escaped(text: str) -> str:
    """Text of a file for a Markdown table, where HTML works too."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
