"""The bundled release `medsae-phantom`: the demo's SAEs, their metrics and the release's card.

python scripts/release_phantom.py --out pretrained   # runs the demo; minutes on two cores
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from medsae_plugin.demo import ENCODER, N_PHANTOMS, run_demo
from medsae_plugin.encoders.cards import load_card
from medsae_plugin.files import replacing_folder, sha256_of, write_text
from medsae_plugin.release.contents import Published, collect
from medsae_plugin.sae_folders import CONFIG, WEIGHTS

RELEASE = "medsae-phantom"


def make_release(out: Path, work: Path, *, n: int = N_PHANTOMS, seed: int = 0, progress: bool = True) -> Path:
    """Run the demo in `work`, or go on with it, and write its SAEs and their card to `out`; returns the card.

    The same arguments give the same files on the same machine.
    """
    demo = run_demo(work, n=n, seed=seed, progress=progress)
    saes = collect([work / "saes"], demo.files["scores"])
    with replacing_folder(out / RELEASE) as folder:
        for sae in saes:
            sae.write(folder / sae.name)
        entries = [_entry(sae, folder / sae.name) for sae in saes]
    card = {
        RELEASE: {
            "folder": RELEASE,
            "model": ENCODER,
            "encoder": ENCODER,
            "licence": load_card(ENCODER).licence,
            "description": f"The demo's SAEs, trained on {n} drawn chest phantoms; they say nothing about radiographs.",
            "saes": entries,
        }
    }
    path = out / f"{RELEASE}.yaml"
    head = "# Made by: python scripts/release_phantom.py --out pretrained\n"
    write_text(path, head + yaml.safe_dump(card, sort_keys=False, width=120))
    return path


def _entry(sae: Published, folder: Path) -> dict[str, Any]:
    scores = sae.scores
    return {
        "id": sae.name,
        "path": sae.name,
        "hook": scores.hook,
        "variance_explained": scores.value("explained_variance"),
        "l0": scores.value("l0"),
        "sha256": {name: sha256_of(folder / name) for name in (CONFIG, WEIGHTS)},
        "metrics": {key: scores.value(key) for key in ("mean_top_r", "mean_top_entropy", "mean_entropy")},
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python scripts/release_phantom.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the card and the SAEs")
    parser.add_argument("--work", type=Path, metavar="DIR", help="the demo's folder (default: a temporary one)")
    parser.add_argument("--n", type=int, default=N_PHANTOMS, help=f"phantoms (default: {N_PHANTOMS})")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        path = make_release(args.out, args.work or Path(temporary) / "demo", n=args.n)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
