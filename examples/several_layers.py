"""An SAE at every stage of the bundled encoder, from one pass over the images and one over the activations.

python examples/several_layers.py [FOLDER]
"""

import sys
from pathlib import Path

import medsae_plugin as medsae
from medsae_plugin.phantoms import generate


def main(out: Path, n: int = 600, samples: int = 100_000) -> None:
    table = medsae.read_table(generate(n, out / "phantoms", seed=0)).split_by_patient(seed=0)
    encoder = medsae.HookedVisionEncoder.from_pretrained("phantom-swin")
    last_of_stage = {name.split(".")[1]: name for name in encoder.hook_specs if name.endswith("hook_resid_post")}
    hooks = [*last_of_stage.values(), "hook_embedding"]
    # Eight positions an image are plenty to train on, and keep the early stages, which have hundreds, small.
    store = medsae.extract(encoder, table, hooks, out / "store", positions="sample:8")
    specs = [medsae.SAESpec(hook, hook, "batchtopk", expansion=1, options={"k": 8}) for hook in hooks]
    config = medsae.TrainingConfig(total_training_samples=samples, batch_size=128, lr=3e-3)
    saes = medsae.train_saes(store, specs, config, out / "saes")
    print(medsae.evaluate(store, saes, table, out / "scores"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/several-layers"))
