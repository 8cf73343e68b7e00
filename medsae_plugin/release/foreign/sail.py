"""SAEs of SAIL (Wesp et al., MICCAI 2026; github.com/pwesp/sail), a Lightning checkpoint of its
`MatryoshkaSAELightning`.

`model.encoder.weight`, `model.encoder.bias`, `model.bias`, where the weights are not tied `model.decoder.weight`, and
what the threshold is learnt from, `model._threshold_sum` and `model._threshold_count`. Its latents are relu((x - bias)
W + b - threshold).
"""

from __future__ import annotations

from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.foreign.format import Format
from medsae_plugin.release.foreign.weights import State, check_width, oriented, state_of


def _convert(saved: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], State]:
    saved = state_of(saved, ("_orig_mod.", "module.", "model."))
    count = float(saved["_threshold_count"])
    if count < 1:
        raise MedSAEError("it was saved before its inference threshold was learnt, so which latents fire is not known")
    weight = saved["encoder.weight"]
    tied = "decoder.weight" not in saved
    state = {
        "W_enc": weight.T,
        "b_enc": saved["encoder.bias"] - saved["_threshold_sum"] / count,
        "W_dec": weight if tied else saved["decoder.weight"].T,
        "b_dec": saved["bias"],
    }
    d_in, d_sae, state = oriented(state)
    check_width(config, {"input_dim": d_in})
    metadata: dict[str, Any] = {"imported_from": "sail", "threshold": float(saved["_threshold_sum"]) / count}
    if isinstance(sizes := config.get("dictionary_sizes"), list | tuple):
        check_width({"d_sae": max(sizes)}, {"d_sae": d_sae})
        metadata["group_sizes"] = [int(b) - int(a) for a, b in zip([0, *sizes], sizes, strict=False)]
    cfg = {"d_in": d_in, "d_sae": d_sae, "architecture": "standard", "apply_b_dec_to_input": True, "metadata": metadata}
    return cfg, state


FORMAT = Format(
    "sail",
    weights="sae.ckpt",
    config="config.json",
    convert=_convert,
    marks=("dictionary_sizes",),
    others=("*.ckpt",),
)
