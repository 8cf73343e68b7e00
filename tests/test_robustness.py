"""Robustness: perturbations by brute force, and an encoder that reads halves of an image, of which all is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.extraction_case import make_images
from helpers.planted import relu_sae, save_sae
from PIL import Image
from torch import Tensor, nn

from medsae_plugin import MedSAEError, extract, read_table, score_robustness
from medsae_plugin.cli import main
from medsae_plugin.encoders import HookedVisionEncoder, Preprocessor
from medsae_plugin.robustness import PERTURBATIONS, Robustness, passing
from medsae_plugin.robustness.perturbations import Variants
from medsae_plugin.robustness.sums import PerturbedSums, groups_of
from medsae_plugin.robustness.verdicts import words_for

CONFIG = {"mode": "L", "size": 32, "fit": "pad", "resample": "bilinear", "mean": [0.0], "std": [1.0]}
LEFT, MIDDLE, EDGE, DARK = range(4)
N, NAMES = 150, tuple(PERTURBATIONS)


class Readings(nn.Module):
    """Of an image of 32 x 32 pixels: left less right, the middle columns, the outermost rows and columns, minus all."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 2, 8, stride=8)
        self.read = nn.Conv2d(3, 4, 32, bias=False)
        of = np.zeros((4, 32, 32))
        of[LEFT, :, :16], of[LEFT, :, 16:] = 1, -1
        of[MIDDLE, :, 8:24] = 2
        of[EDGE] = 10
        of[EDGE, 1:-1, 1:-1] = 0
        of[DARK] = -1
        with torch.no_grad():
            self.read.weight.copy_(torch.from_numpy(of / 32**2).float()[:, None].expand(-1, 3, -1, -1) / 3)
            self.patches.weight.zero_()
            self.patches.weight[0] = 1 / (3 * 64)
            self.patches.weight[1] = -1 / (3 * 64)
            self.patches.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        self.patches(x)
        return self.read(x)


CARD: dict[str, Any] = {
    "name": "readings",
    "description": "for tests",
    "licence": "MIT",
    "family": "custom",
    "source": {"format": "module"},
    "preprocessing": CONFIG,
    "hooks": [{"name": "hook_embed", "path": "patches", "layout": "map"}],
}


def readings(pixels: np.ndarray) -> np.ndarray:
    """What the encoder reads of `(32, 32)` grey levels."""
    x = pixels.astype(np.float64) / 255
    edge = x.sum() - x[1:-1, 1:-1].sum()
    sums = np.array([x[:, :16].sum() - x[:, 16:].sum(), 2 * x[:, 8:24].sum(), 10 * edge, -x.sum()])
    return sums / 32**2


def draw(path: Path, rng: np.random.Generator) -> np.ndarray:
    """64 x 64 pixels: blocks of grey within 60 to 200, so that no window cuts one off, and a frame of its own."""
    pixels = np.kron(rng.integers(60, 200, (8, 8)), np.ones((8, 8)))
    pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:] = rng.integers(60, 200, 4)
    image = pixels.astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def changed(pixels: np.ndarray, name: str) -> np.ndarray:
    """The input of a perturbed image, by other means than the package's where there are any."""
    if name == "mirrored":
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    elif name == "cropped":
        pixels = np.ascontiguousarray(pixels[3:-3, 3:-3])  # 5 % of 64 is 3.2
    elif name == "window":
        low, high = 127.5 - 0.4 * 255, 127.5 + 0.4 * 255
        pixels = np.interp(pixels, [low, high], [0, 255]).round().astype(np.uint8)
    image = Image.fromarray(pixels)
    if name == "rotated":
        turn = np.deg2rad(5)
        c, s = np.cos(turn), np.sin(turn)
        centre = 32 - np.array([[c, -s], [s, c]]) @ [32, 32]  # from the pixels of the result to those of the image
        image = image.transform(
            (64, 64), Image.Transform.AFFINE, (c, -s, centre[0], s, c, centre[1]), Image.Resampling.BILINEAR
        )
    return np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("robustness")
    rng = np.random.default_rng(0)
    paths = [f"patient{i // 3:05d}/view{i % 3}.png" for i in range(N)]
    images = [draw(folder / path, rng) for path in paths]
    plain = np.stack([readings(changed(image, "")) for image in images])
    frame = pd.DataFrame({"Path": paths, "Edema": (plain[:, LEFT] > 0).astype(int)})
    frame["Fracture"] = (plain[:, MIDDLE] + rng.normal(scale=0.01, size=N) > np.median(plain[:, MIDDLE])).astype(int)
    frame.to_csv(folder / "labels.csv", index=False)
    table = read_table(folder / "labels.csv", label_columns=("Edema", "Fracture"))
    table = table.split_by_patient(seed=0, fractions={"train": 0.4, "test": 0.6})
    encoder = HookedVisionEncoder.from_module(Readings(), CARD)
    store = extract(encoder, table, ["hook_embedding", "hook_embed"], folder / "store", workers=0, progress=False)
    # Sums of grey levels are whole numbers: half of one beyond a sum no rounding decides whether a latent fires.
    middles = [0.0, *(np.sort(plain[:, j])[N // 2] for j in (MIDDLE, EDGE, DARK))]
    thresholds = [x + 0.5 / (255 * 32**2) for x in middles]
    weights = torch.eye(4), torch.eye(4), -torch.tensor(thresholds).float()
    sae = save_sae(folder / "saes" / "read", relu_sae("hook_embedding", *weights))
    test = np.flatnonzero(table.frame["split"] == "test")
    return {
        "folder": folder, "table": table, "store": store, "sae": sae, "encoder": encoder, "thresholds": thresholds,
        "images": [images[i] for i in test], "patients": table.frame["patient"].to_numpy()[test],
        "labels": frame[["Edema", "Fracture"]].to_numpy()[test],
    }  # fmt: skip


def scored(case: dict[str, Any], out: Path | None = None, **options: Any) -> Robustness:
    arguments = {"progress": False, **options}
    return score_robustness(case["encoder"], case["store"], [case["sae"]], case["table"], out, **arguments)


def fired(case: dict[str, Any], name: str) -> np.ndarray:
    of = np.stack([readings(changed(image, name)) for image in case["images"]])
    return np.maximum(of - case["thresholds"], 0)


def row(found: Robustness, latent: int, name: str, units: str = "read") -> pd.Series:
    frame = found.frame()
    (only,) = frame[(frame.units == units) & (frame.latent == str(latent)) & (frame.perturbation == name)].index
    return frame.loc[only]


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("name", ["rotated", "mirrored", "cropped", "window"])
def test_what_is_kept_is_what_brute_force_finds(case: dict[str, Any], name: str):
    found = scored(case, perturbations=[name], batch_size=7)
    a, b = fired(case, ""), fired(case, name)
    (units,) = [u for u in found.units if u.kind == "sae"]
    patients = np.unique(case["patients"])
    assert found.groups == len(patients) < 40  # each is left out by itself
    for j in range(4):
        got = row(found, j, name)
        both, either = ((a[:, j] > 0) & (b[:, j] > 0)).sum(), ((a[:, j] > 0) | (b[:, j] > 0)).sum()
        assert (got.fired, got.fired_perturbed) == ((a[:, j] > 0).sum(), (b[:, j] > 0).sum())
        assert got.jaccard == pytest.approx(both / either)
        p, q = (a[:, j] > 0).mean(), (b[:, j] > 0).mean()
        if p and q:
            assert got.jaccard_chance == pytest.approx(p * q / (p + q - p * q))
        if not b[:, j].any():
            continue
        assert got.r == pytest.approx(pearson(a[:, j], b[:, j]), abs=1e-5)
        if got.no_interval is None:
            left = [pearson(*(x[case["patients"] != one, j] for x in (a, b))) for one in patients]
            z = np.arctanh(left)
            se = np.sqrt((len(z) - 1) / len(z) * ((z - z.mean()) ** 2).sum())
            from scipy.stats import t

            half = t.ppf(0.975, len(z) - 1) * se
            assert (got.r_low, got.r_high) == pytest.approx(
                tuple(np.tanh([np.arctanh(got.r) - half, np.arctanh(got.r) + half])), abs=1e-4
            )
    assert [x.latent for x in units.top] == [LEFT, MIDDLE]
    for c, (x, j) in enumerate(zip(units.top, (LEFT, MIDDLE), strict=True)):
        assert x.r == pytest.approx(pearson(a[:, j], case["labels"][:, c]), abs=1e-5)
        assert x.perturbed[name].r == pytest.approx(pearson(b[:, j], case["labels"][:, c]), abs=1e-5)
        assert x.perturbed[name].change == pytest.approx(x.perturbed[name].r - x.r)


def test_a_reading_of_one_side_is_gone_in_a_mirror_and_a_symmetric_one_stays(case: dict[str, Any]):
    found = scored(case)
    z = np.stack([readings(changed(image, "")) for image in case["images"]])[:, LEFT]
    left = row(found, LEFT, "mirrored")
    assert left.jaccard == 0  # left less right is right less left with its sign changed
    assert left.r == pytest.approx(pearson(np.maximum(z, 0), np.maximum(-z, 0)), abs=1e-3)
    assert left.verdict == "changes" and left.hangs_on == "a side: changes when mirrored"
    middle = row(found, MIDDLE, "mirrored")
    assert middle.jaccard == 1 and middle.r == pytest.approx(1) and middle.verdict == "keeps"
    edge = row(found, EDGE, "cropped")
    assert edge.verdict == "changes" and edge.hangs_on == "an edge: changes when cropped"
    assert row(found, EDGE, "mirrored").r == pytest.approx(1)
    (units,) = [u for u in found.units if u.kind == "sae"]
    assert units.hangs_on == {"a side: changes when mirrored": [LEFT], "an edge: changes when cropped": [EDGE]}
    assert units.top[0].hangs_on == "a side: changes when mirrored" and units.top[0].perturbed["mirrored"].r < 0
    assert units.perturbations["mirrored"].changes == 1 and units.judged == 4
    neurons = f"neurons of {units.hook}"
    assert row(found, MIDDLE, "mirrored", neurons).jaccard == 1
    assert row(found, LEFT, "mirrored", neurons).r == pytest.approx(-1)  # without relu: r is that of z and -z
    assert {u.kind for u in found.units} == {"sae", "untrained", "neurons"}


def test_noise_and_cells_are_of_their_size_and_follow_from_the_image_and_the_seed():
    pixels = np.random.default_rng(0).integers(60, 200, (64, 48), dtype=np.uint8)
    image = Image.fromarray(pixels)
    preprocessor = Preprocessor.from_config({**CONFIG, "size": [64, 48], "mean": [0.5], "std": [0.5]})
    made = Variants(preprocessor, NAMES, 0).to_array(image)
    plain, masked, noise = made[0], made[1 + NAMES.index("masked")], made[1 + NAMES.index("noise")]
    np.testing.assert_array_equal(plain, pixels)
    cells = (masked != pixels).reshape(4, 16, 3, 16).any((1, 3))
    assert cells.sum() == 6  # of 12
    hidden = cells.repeat(16, 0).repeat(16, 1)
    assert (masked[hidden] == round(pixels.mean())).all() and (masked[~hidden] == pixels[~hidden]).all()
    assert (noise.astype(float) - pixels).std() == pytest.approx(0.05 * 255, rel=0.05)
    for again, same in ((Variants(preprocessor, ("noise",), 0), True), (Variants(preprocessor, ("noise",), 1), False)):
        assert np.array_equal(again.to_array(image)[1], noise) == same
    other = Image.fromarray(np.flipud(pixels))
    assert not np.array_equal(Variants(preprocessor, NAMES, 0).to_array(other)[1] != np.flipud(pixels), hidden)
    colour = Preprocessor.from_config({**CONFIG, "mode": "RGB", "size": [64, 48]})
    shown = Variants(colour, NAMES, 0).to_array(image)
    assert shown.shape == (7, 64, 48, 3)
    np.testing.assert_array_equal(shown[0, ..., 0], plain)
    np.testing.assert_array_equal(shown[..., 0], shown[..., 2])


def test_positions_are_those_that_the_store_keeps(case: dict[str, Any], tmp_path: Path):
    """The brightest of sixteen patches is as bright in a mirror; sampled ones are other places of the image there."""
    sae = save_sae(tmp_path / "brightest", relu_sae("hook_embed", torch.eye(2), b_enc=-0.5))
    found = score_robustness(
        case["encoder"], case["store"], [sae], case["table"], perturbations=["mirrored"], progress=False
    )
    assert row(found, 0, "mirrored", "brightest").r == pytest.approx(1)
    store = extract(
        case["encoder"], case["table"], ["hook_embed"], tmp_path / "sampled", positions="sample:3", workers=0,
        progress=False,
    )  # fmt: skip
    found = score_robustness(case["encoder"], store, [sae], case["table"], perturbations=["mirrored"], progress=False)
    rng = [np.random.default_rng([0, i]) for i in np.flatnonzero(case["table"].frame["split"] == "test")]
    a, b = [], []
    for image, drawn in zip(case["images"], rng, strict=True):
        places = np.sort(drawn.choice(16, 3, replace=False))
        for pixels, into in ((changed(image, ""), a), (changed(image, "mirrored"), b)):
            patches = pixels.reshape(4, 8, 4, 8).mean((1, 3)).reshape(16) / 255
            into.append(max(patches[places].max() - 0.5, 0))
    assert row(found, 0, "mirrored", "brightest").r == pytest.approx(pearson(np.array(a), np.array(b)), abs=1e-4)


def test_a_pass_that_is_stopped_goes_on_to_the_same_files(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scored(case, tmp_path / "whole", batch_size=8)
    monkeypatch.setattr(passing, "_SAVE_SECONDS", 0.0)
    see, seen = passing.Pass._see, []

    def stopped(self: Any, places: np.ndarray, arrays: np.ndarray) -> None:
        seen.append(places)
        if len(seen) == 5:
            raise KeyboardInterrupt
        see(self, places, arrays)

    monkeypatch.setattr(passing.Pass, "_see", stopped)
    with pytest.raises(KeyboardInterrupt):
        scored(case, tmp_path / "broken", batch_size=8)
    assert (tmp_path / "broken" / passing.PARTIAL).is_file()
    scored(case, tmp_path / "broken", batch_size=8)
    assert seen[5][0] == 32  # four batches were kept
    for file in ("robustness.json", "robustness.parquet"):
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not (tmp_path / "broken" / passing.PARTIAL).exists()
    assert Robustness.open(tmp_path / "whole").frame().equals(scored(case, batch_size=8).frame())


def test_what_it_is_not_of_is_refused(case: dict[str, Any], tmp_path: Path):
    other = Readings()
    with torch.no_grad():
        other.read.weight.mul_(2)
    encoder = HookedVisionEncoder.from_module(other, CARD)
    with pytest.raises(MedSAEError, match="with other weights"):
        score_robustness(encoder, case["store"], [case["sae"]], case["table"], progress=False)
    with pytest.raises(MedSAEError, match="there is no perturbation 'blurred'; there are masked, noise"):
        scored(case, perturbations=["blurred"])
    moved = tmp_path / "images"
    make_images(moved, N)
    (moved / "labels.csv").write_text((case["folder"] / "labels.csv").read_text())
    table = read_table(moved / "labels.csv", label_columns=("Edema", "Fracture"))
    with pytest.raises(MedSAEError, match="give other activations at hook_embedding than"):
        score_robustness(case["encoder"], case["store"], [case["sae"]], table, progress=False)
    first = case["table"].frame["path"][case["table"].frame["split"] == "test"].iloc[0]
    (moved / first).unlink()
    with pytest.raises(MedSAEError, match="was read when its activations were stored, and cannot be now"):
        score_robustness(case["encoder"], case["store"], [case["sae"]], table, progress=False)


def test_sums_over_groups_are_those_of_their_images_and_groups_hold_whole_patients():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 90, 400).astype(str)
    group = groups_of(patients, 0)
    assert set(group) == set(range(40))
    assert all(len(set(group[patients == one])) == 1 for one in set(patients))
    sizes = np.bincount([group[patients == one][0] for one in np.unique(patients)])
    assert sizes.max() - sizes.min() <= 1
    x = np.maximum(rng.normal(size=(400, 2, 5)) + 1000 * (np.arange(5) == 4), 0)
    x[:, 1, 2] = 0  # silent when perturbed
    x[:, :, 3] = 7  # constant
    sums = PerturbedSums(40, 1, 5)
    for some in np.array_split(np.arange(400), 7):
        sums.update(group[some], torch.from_numpy(x[some]))
    kept = sums.kept(0)
    assert np.isnan(kept.r[[2, 3]]).all() and kept.jaccard[2] == 0 and kept.jaccard[3] == kept.chance[3] == 1
    for j in (0, 1, 4):
        assert kept.r[j] == pytest.approx(pearson(x[:, 0, j], x[:, 1, j]))
        for g in (0, 39):
            left = group != g
            assert kept.r_left_out[g, j] == pytest.approx(pearson(x[left, 0, j], x[left, 1, j]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mirrored", "masked"}, "a side: changes when mirrored"),
        ({"mirrored", "cropped"}, "an edge or a marker at one side: changes when mirrored and when cropped"),
        ({"cropped"}, "an edge: changes when cropped"),
        ({"rotated"}, "an angle: changes when rotated"),
        ({"mirrored", "noise", "window"}, "grey levels: changes with noise and the window"),
        ({"masked"}, ""),
    ],
)
def test_words_for_what_changes(changes: set[str], said: str):
    verdicts = {name: "changes" if name in changes else "keeps" for name in NAMES}
    assert words_for(verdicts) == said
    assert words_for({**verdicts, "noise": "cannot say"}) == ("" if "noise" not in changes else words_for(
        {**verdicts, "noise": "keeps"}))  # fmt: skip
    assert words_for({name: verdict for name, verdict in verdicts.items() if name in ("mirrored", "cropped")}) == ""


def test_the_command(demo_saes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["robustness", str(demo_saes.store.path), str(demo_saes.folders["embedding"])]
    words += ["--table", str(demo_saes.table.root / "labels.csv"), "--out", str(tmp_path / "out"), "--quiet"]
    assert main([*words, "--perturbations", "mirrored,window", "--workers", "0"]) == 0
    told = capsys.readouterr().out
    assert "r with itself" in told and "neurons of hook_embedding" in told
    found = Robustness.open(tmp_path / "out")
    assert list(found.perturbations) == ["mirrored", "window"] and str(found) in told
    assert len(found.frame()) == 2 * sum(u.units for u in found.units)
    assert main(["schema", "robustness"]) == 0
    assert {"units", "perturbations"} <= set(json.loads(capsys.readouterr().out)["properties"])
