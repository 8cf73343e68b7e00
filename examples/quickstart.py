"""The whole path on chest phantoms: draw, extract, train, score. Needs nothing but the package.

python examples/quickstart.py [FOLDER]
"""

import sys
from pathlib import Path

import medsae_plugin as medsae
from medsae_plugin.phantoms import generate


def main(out: Path, n: int = 600, samples: int = 200_000) -> None:
    table = medsae.read_table(generate(n, out / "phantoms", seed=0)).split_by_patient(seed=0)
    encoder = medsae.HookedVisionEncoder.from_pretrained("phantom-swin")
    store = medsae.extract(encoder, table, ["hook_embedding"], out / "store")
    spec = medsae.SAESpec("embedding", "hook_embedding", "batchtopk", expansion=2 / 3, options={"k": 8})
    config = medsae.TrainingConfig(total_training_samples=samples, batch_size=128, lr=3e-3)
    saes = medsae.train_saes(store, [spec], config, out / "saes")
    print(medsae.evaluate(store, saes, table, out / "scores"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart"))
