"""Find the latent that carries a zero-shot finding and edit it. Uses what quickstart.py has made.

python examples/edit_latents.py [FOLDER] [FINDING]
"""

import sys
from pathlib import Path

import numpy as np
from sae_lens import SAE

import medsae_plugin as medsae
from medsae_plugin.causal import attribute, effect_of_edits
from medsae_plugin.causal.passes import PixelBatches
from medsae_plugin.encoders import ZeroShot, ablate, scale


def main(out: Path, finding: str = "Pleural Effusion", n: int = 50) -> None:
    encoder = medsae.HookedVisionEncoder.from_pretrained("phantom-swin")
    sae = SAE.load_from_disk(out / "saes" / "embedding")
    table = medsae.read_table(out / "phantoms" / "labels.csv")
    shown = table.take(np.flatnonzero(table.labels[:, table.label_names.index(finding)] == 1)[:n])
    zero_shot = ZeroShot(encoder, encoder.card.own_prompts())
    c = zero_shot.labels.index(finding)

    attribution = attribute(encoder, sae, zero_shot, PixelBatches(encoder, shown, progress=False))
    latent = int(attribution.live[attribution.mean(attribution.ablation)[:, c].argmax()])
    print(f"{finding}: latent {latent} carries most of its score on {len(shown)} phantoms that show it")

    pixels = encoder.preprocess([shown.image_path(i) for i in range(len(shown))])
    print(f"  as it is   {zero_shot.scores(encoder(pixels))[:, c].mean():+.3f}")
    for what, edit in {"ablated": ablate(), "doubled": scale(2.0)}.items():
        change = effect_of_edits(encoder, zero_shot, pixels, {sae: {latent: edit}}).scores[:, c].mean()
        print(f"  {what}    {change:+.3f}")


if __name__ == "__main__":
    folder, *finding = sys.argv[1:] or ["runs/quickstart"]
    main(Path(folder), *finding)
