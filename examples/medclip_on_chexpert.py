"""The MedSAE of the paper on CheXpert: MedCLIP's image embedding, a ReLU SAE, scores on held-out patients.

    python examples/medclip_on_chexpert.py CheXpert-v1.0-small/train.csv runs/medclip [--weights medclip-pretrained.zip]

Without --weights the official checkpoint is downloaded once.
"""

import argparse
import dataclasses
from pathlib import Path

import medsae_plugin as medsae

RECIPE = "medsae-paper"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", default="medclip-resnet50-medsae")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, help="train on fewer activations than the recipe says")
    args = parser.parse_args()

    table = medsae.read_table(args.table).split_by_patient(seed=0)
    encoder = medsae.HookedVisionEncoder.from_pretrained(args.encoder, args.weights, device=args.device)
    store = medsae.extract(encoder, table, ["hook_embedding_unit"], args.out / "store")
    specs, config = medsae.load_recipe(RECIPE)
    config = dataclasses.replace(config, device=args.device)
    if args.samples:
        config = dataclasses.replace(config, epochs=None, total_training_samples=args.samples)
    saes = medsae.train_saes(store, specs, config, args.out / "saes")
    print(medsae.evaluate(store, saes, table, args.out / "scores"))


if __name__ == "__main__":
    main()
