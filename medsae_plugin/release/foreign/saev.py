"""SAEs of saev (Stevens et al., arXiv 2502.06755): `sae.pt`, a line of JSON and then a state dict.

The line is the config alone in files of its version 0.1, whose encoder subtracts `b_dec` from its input; later it has a
`schema`, 1 to 5, beside `cfg`, and from schema 2 on no version subtracts `b_dec`. Under schema 1 some did and some did
not, and the file does not tell. Batch-top-k keeps its threshold since schema 3; before it was taken over each batch,
or per row.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

from medsae_plugin.errors import MedSAEError
from medsae_plugin.release.foreign.format import Format
from medsae_plugin.release.foreign.weights import State, check_k, check_width, oriented, state_of, unpickled
from medsae_plugin.sae_folders import refuse_lfs_pointer

_SCHEMAS = range(1, 6)
_LONGEST_HEADER = 1 << 20


def _read(path: Path) -> dict[str, Any]:
    refuse_lfs_pointer(path)
    with path.open("rb") as file:
        line = file.readline(_LONGEST_HEADER)
        try:
            header = json.loads(line)
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise MedSAEError(
                f"{path} is no checkpoint of saev: those begin with a line of JSON, it with {line[:24]!r}"
            )
        return {"state_dict": unpickled(io.BytesIO(file.read()), path), "cfg": header}


def _convert(saved: dict[str, Any], header: dict[str, Any]) -> tuple[dict[str, Any], State]:
    saved = state_of(saved)
    schema = header.get("schema", 0)
    if schema not in (0, *_SCHEMAS):
        raise MedSAEError(f"saev's schema {schema} is not known; 1 to {_SCHEMAS[-1]} are")
    config = header["cfg"] if schema else header
    d_in, d_sae, state = oriented({key: saved[key] for key in ("W_enc", "b_enc", "W_dec", "b_dec")})
    check_width(config, {"d_vit": d_in, "d_model": d_in, "d_sae": d_sae})
    if "exp_factor" in config:
        check_width({"d_sae": d_in * config["exp_factor"]}, {"d_sae": d_sae})
    cfg: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": schema == 0}
    if schema == 1 and bool(state["b_dec"].any()):
        raise MedSAEError(
            "under schema 1 some versions of saev subtract b_dec from the input and some do not, and the file does not "
            "tell which wrote it: load it with the version that did, and save it with a later one"
        )
    metadata = {"imported_from": "saev", "schema": schema, "lib": header.get("lib")}
    kind, k = _activation(header, config, schema)
    if kind == "Relu":
        cfg["architecture"] = "standard"
    elif kind == "TopK" or (kind == "BatchTopK" and schema == 2):  # its batch-top-k took the k largest of each row
        cfg |= {"architecture": "topk", "k": check_k(k, d_sae, "its activation")}
        warnings.warn(
            "saev's top-k keeps a negative value where fewer than k latents are above 0; here those are 0", stacklevel=2
        )
    elif kind == "BatchTopK" and "activation.threshold" in saved:
        cfg["architecture"] = "jumprelu"
        state["threshold"] = saved["activation.threshold"].clamp(min=0).expand(d_sae)
        metadata["k"] = k
    elif kind == "BatchTopK":
        raise MedSAEError(
            "this batch-top-k SAE is from before saev kept its threshold: which latents fire hung on the batch"
        )
    else:
        raise MedSAEError(f"SAE-Lens has nothing like saev's activation {kind!r}")
    return cfg | {"metadata": metadata}, state


def _activation(header: dict[str, Any], config: dict[str, Any], schema: int) -> tuple[str, Any]:
    """The class of the activation, and k."""
    if schema == 0:
        return "Relu", None
    if isinstance(activation := config.get("activation"), dict):
        return str(activation["cls"]), (activation.get("params") or {}).get("top_k")
    if schema == 1 and "cls" in header:
        return str(header["cls"]), config.get("top_k")
    raise MedSAEError("its line of JSON does not say which activation the SAE has")


FORMAT = Format(
    "saev",
    weights="sae.pt",
    config="config.json",
    convert=_convert,
    marks=("d_vit", "schema"),
    read=_read,
    unsaid="saev's data loader may subtract a mean and scale activations before the SAE, which its checkpoint does "
    "not hold",
)
