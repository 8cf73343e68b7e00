"""The report of an SAE of 4,096 latents: its size, and how soon it answers. `python benchmarks/report.py`.

Phantoms, the bundled encoder, and an SAE at a spatial layer, so that every latent has its strongest images and their
heatmaps. Chromium opens the files from disk; interactive is when the script has drawn the first view and listens to
the keyboard, counted from the start of the navigation. Each figure is the median of fresh browsers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import medsae_plugin as medsae
from medsae_plugin.phantoms import generate
from medsae_plugin.report import write_report
from medsae_plugin.scores import Resampling

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from helpers import chromium

# Most images are reported on, so that there are many pictures to show.
SPLITS = {"train": 0.15, "val": 0.05, "test": 0.8}
HOOK = "stages.2.blocks.3.hook_resid_post"
# From an event to the end of the next frame, in milliseconds.
TIMED = """
const done = arguments[1], start = performance.now();
(0, eval)(arguments[0]);
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""
ACTIONS = {
    "open the list": "location.hash = '#/latents'; dispatchEvent(new HashChangeEvent('hashchange'))",
    "search": "const i = document.getElementById('search'); i.value = 'edema'; i.dispatchEvent(new Event('input'))",
    "sort": "document.querySelectorAll('.head button')[4].click()",
    "scroll to the end": "const w = document.querySelector('.window'); w.scrollTop = w.scrollHeight",
    "open a latent": "document.querySelector('.item').click(); dispatchEvent(new HashChangeEvent('hashchange'))",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for kind, (path, seconds) in reports(Path(name), args.latents, args.images).items():
            print(f"{kind}: {path.stat().st_size / 1e6:.1f} MB, written in {seconds:.1f} s")
            if reason := chromium.missing():
                print(f"  not timed: {reason}")
                continue
            runs = [times(path) for _ in range(args.repeats)]
            for what in runs[0]:
                print(f"  {what:<20}{median(run[what] for run in runs):>8.0f} ms")


def reports(folder: Path, n_latents: int, n_images: int) -> dict[str, tuple[Path, float]]:
    """The reports without and with images, and the seconds that each took."""
    table = medsae.read_table(generate(n_images, folder / "phantoms", size=128)).split_by_patient(
        seed=0, fractions=SPLITS
    )
    encoder = medsae.HookedVisionEncoder.from_pretrained("phantom-swin")
    store = medsae.extract(encoder, table, [HOOK, "hook_embedding"], folder / "store")
    # Lightly penalised, so that nearly every latent fires and has a full page.
    spec = medsae.SAESpec("wide", HOOK, "standard", n_latents / store.hooks[HOOK].d, options={"l1_coefficient": 0.1})
    config = medsae.TrainingConfig(total_training_samples=102_400, batch_size=512, lr=1e-3, validate_every=20)
    saes = list(medsae.train_saes(store, [spec], config, folder / "saes").values())
    evaluation = medsae.evaluate(store, saes, table, folder / "scores", resampling=Resampling(20))
    dead = evaluation.saes[0].image_level["dead"] or 0
    print(f"{n_latents} latents, {1 - dead:.0%} of which fire, on {evaluation.report.images} images")
    made = {}
    for kind, shown in (("without images", {}), ("with images", {"store": store, "images": folder / "phantoms"})):
        start = time.perf_counter()
        path = write_report(folder / "scores", folder / f"{kind}.html", saes=saes, table=table, **shown)
        made[kind] = path, time.perf_counter() - start
    return made


def times(path: Path) -> dict[str, float]:
    """Milliseconds until the page is interactive, and until each action is drawn."""
    with chromium.browser() as driver:
        driver.get(path.as_uri())
        mark = "return performance.getEntriesByName('interactive')[0].startTime"
        taken = {"interactive": float(driver.execute_script(mark))}
        for what, script in ACTIONS.items():
            taken[what] = float(driver.execute_async_script(TIMED, script))
        return taken


if __name__ == "__main__":
    main()
