"""Units that fire where a finding is, or elsewhere, by construction: what `score_regions` says of them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.planted import made_up_images, relu_sae, save_sae, write_store
from PIL import Image

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.cli import main
from medsae_plugin.comparison import Comparison, compare
from medsae_plugin.data.regions import read_regions
from medsae_plugin.localisation.results import FIGURES, Localisation
from medsae_plugin.localisation.score import score_regions
from medsae_plugin.scores import Resampling
from medsae_plugin.scores.images import Folds

N, SIDE, PIXELS = 300, 4, 16
PREPROCESSING = {"mode": "L", "size": PIXELS, "fit": "pad", "resample": "bilinear", "mean": [0.5], "std": [0.5]}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Images with the finding in one random cell of 4 x 4. Latent 0 fires there, latent 1 in the top left corner of
    images that have it, latent 2 in the cell beside, of every image. `all` is a region of each: the cells of rows 2
    and 3."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    images = made_up_images(N, 0)
    present = rng.random(N) < 0.5
    cell = rng.integers(1, SIDE * SIDE, N)
    rows = np.zeros((N, SIDE * SIDE, 3), np.float32)
    rows[present, cell[present], 0] = rng.uniform(1, 2, present.sum())
    rows[present, 0, 1] = rng.uniform(1, 2, present.sum()) * (rng.random(present.sum()) < 0.8)
    rows[np.arange(N), (cell + 1) % 16, 2] = 1
    store = write_store(
        folder / "store", {"h": rows, "pooled": rows.max(1)}, images=images, preprocessing=PREPROCESSING
    )
    for name in images["path"]:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (PIXELS, PIXELS), 128).save(path)
    labels = pd.DataFrame({"Path": images["path"], "spot": present.astype(int), "all": 1})
    labels.loc[np.flatnonzero(present)[:2], "spot"] = 0  # of these the regions contradict the table
    labels.to_csv(folder / "labels.csv", index=False)
    for k, name in enumerate(images["path"]):
        stem = name.removesuffix(".png")
        if present[k]:
            _mask(folder / "masks" / "spot" / f"{stem}.png", [divmod(int(cell[k]), SIDE)])
        _mask(folder / "masks" / "all" / f"{stem}.png", [(r, c) for r in (2, 3) for c in range(SIDE)])
    saes = save_sae(folder / "sae", relu_sae("h", torch.eye(3), encoder_sha256="0" * 64))
    return folder, store, saes


def _mask(path, cells):
    mask = np.zeros((PIXELS, PIXELS), np.uint8)
    for r, c in cells:
        mask[4 * r : 4 * r + 4, 4 * c : 4 * c + 4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def the_table(folder):
    return read_table(folder / "labels.csv", root=folder / "images", label_columns=["spot", "all"])


@pytest.fixture(scope="module")
def found(planted):
    folder, store, sae = planted
    table = the_table(folder)
    regions = read_regions(folder / "masks", table)
    return score_regions(store, sae, table, regions, folder / "out", latents=["1"], inside="all", progress=False)


def test_a_latent_that_fires_on_the_finding_is_right_in_every_figure(planted, found):
    folder, store, _ = planted
    best = found.units[0].best("spot")
    assert best.unit == 0 and best.rank == 1
    assert [best.figures[f].mean for f in ("pointing", "iou", "dice", "average_precision", "mass")] == [1] * 5
    assert best.figures["pointing"].no_interval == "the same on every image"
    labels, test = pd.read_csv(folder / "labels.csv"), np.flatnonzero(store.images["split"] == "test")
    assert best.images == best.fires == int(labels["spot"][test].sum())
    chance = best.figures["pointing"].chance
    assert chance < 0.3 and best.figures["pointing"].gain == pytest.approx(1 - chance)
    low, high = best.figures["pointing"].gain_interval
    assert 0.5 < low < 1 - chance < high


def test_a_latent_that_fires_in_a_corner_follows_the_finding_and_points_nowhere_near(found):
    corner = next(x for x in found.units[0].latents if x.label == "spot" and x.unit == 1)
    assert corner.r_select > 0.5 and corner.fires < corner.images
    assert corner.figures["pointing"].mean == 0 and corner.figures["mass"].mean == 0
    assert corner.figures["mass"].images == corner.fires, "where it is silent it has no mass"


def test_neurons_and_an_untrained_sae_stand_beside(found):
    assert [u.kind for u in found.units] == ["sae", "untrained", "neurons"]
    assert found.units[2].best("spot").figures["iou"].mean == 1, "axis 0 is latent 0"


def test_what_the_table_contradicts_is_left_out_and_counted(planted, found):
    folder, store, _ = planted
    test = set(np.flatnonzero(store.images["split"] == "test"))
    masks = {p.relative_to(folder / "masks" / "spot").as_posix() for p in (folder / "masks" / "spot").rglob("*.png")}
    labels = pd.read_csv(folder / "labels.csv")
    gone = sum(labels["Path"][k] in masks and labels["spot"][k] == 0 for k in test)
    assert found.not_shown.get("spot", 0) == gone


def test_which_latents_fire_outside_of_a_region_of_every_image(planted, found):
    folder, *_ = planted
    sae = found.inside[0]
    assert sae.outside == [1] and 1 not in sae.inside and found.inside_share == 0.5
    frame = pd.read_parquet(folder / "out" / "inside.parquet")
    mine = frame[(frame["sae"] == "sae") & (frame["unit"] == "1")].iloc[0]
    assert mine["share_inside"] == 0 and mine["region_share"] == 0.5 and mine["flag"] == "outside"
    assert mine["p"] == pytest.approx(2 * 0.5 ** mine["patients"]), "a coin for each patient"


def test_sizes_are_bands_of_the_images_that_thresholds_are_from(planted, found):
    bands = found.units[0].best("spot").sizes
    assert [band.size for band in bands] == ["small", "medium", "large"]
    assert sum(band.images for band in bands) == found.units[0].best("spot").images
    frame = pd.read_parquet(planted[0] / "out" / "localisation.parquet")
    assert set(frame["size"]) == {"all", "small", "medium", "large"}


def test_bilinear_pixels_find_the_same_place(planted, found):
    folder, store, sae = planted
    table = the_table(folder)
    pixels = (
        score_regions(store, sae, table, read_regions(folder / "masks", table), maps="pixels", progress=False)
        .units[0]
        .best("spot")
    )
    assert pixels.unit == 0 and pixels.figures["pointing"].mean == 1
    assert 0.4 < pixels.figures["iou"].mean < 1, "a cell's map is a hill"


def test_the_command_writes_what_opens_again(planted, found, tmp_path, capsys):
    folder, store, sae = planted
    words = ["localize", str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--root",
             str(folder / "images"), "--labels", "spot,all", "--regions", str(folder / "masks"), "--latents", "1",
             "--inside", "all", "--out", str(tmp_path), "--quiet"]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    opened = Localisation.open(tmp_path)
    assert opened.to_json() == found.to_json() and str(opened) in said
    frame = pd.read_parquet(tmp_path / "localisation.parquet")
    assert set(frame["figure"]) == set(FIGURES)
    assert "NaN" not in json.dumps(opened.to_json())


def test_a_hook_without_positions_is_refused_in_words(planted, tmp_path):
    folder, store, _ = planted
    table = the_table(folder)
    pooled = save_sae(tmp_path / "pooled", relu_sae("pooled", torch.eye(3), encoder_sha256="0" * 64))
    with pytest.raises(MedSAEError, match=r"no positions.*--maps gradient"):
        score_regions(store, pooled, table, read_regions(folder / "masks", table), progress=False)
    with pytest.raises(MedSAEError, match="--encoder"):
        score_regions(store, pooled, table, read_regions(folder / "masks", table), maps="gradient", progress=False)


def test_units_are_chosen_at_one_hospital_and_localised_at_another(planted, tmp_path, capsys):
    """The store twice over, as two hospitals: what is chosen on `train` of one is reported on all images of the other,
    which has no labels for its own training split."""
    folder, store, sae = planted
    other = tmp_path / "hospital"
    shutil.copytree(store.path, other)
    words = ["localize", str(store.path), str(sae), "--table", str(folder / "labels.csv"), "--root",
             str(folder / "images"), "--labels", "spot,all", "--regions", str(folder / "masks"), "--out",
             str(tmp_path / "out"), "--select-from", str(other), "--other-patients", "--quiet"]  # fmt: skip
    assert main(words) == 0
    there = Localisation.open(tmp_path / "out")
    best = there.units[0].best("spot")
    assert there.select.split == "train of hospital" and there.report.split == "test of store"
    assert best.unit == 0 and best.figures["pointing"].mean == 1
    assert best.select_images == 0 and best.figures["iou"].mean is None and best.sizes == [], "no regions at A"
    assert main([*words, "--select-regions", str(folder / "masks")]) == 0
    again = Localisation.open(tmp_path / "out").units[0].best("spot")
    assert again.select_images > 0 and again.figures["iou"].mean == 1 and len(again.sizes) == 3
    capsys.readouterr()
    assert main([*words, "--maps", "gradient", "--encoder", "medclip-swin"]) == 1
    assert "two places" in capsys.readouterr().err


def test_a_comparison_says_where_each_layer_looks(planted, found, tmp_path):
    """Two SAEs at the spatial hook, one of the finding's place and one of a corner; the pooled one has none."""
    folder, store, sae = planted
    table = the_table(folder)
    corner = save_sae(tmp_path / "corner", relu_sae("h", torch.eye(3)[[1, 2]], encoder_sha256="0" * 64))
    pooled = save_sae(tmp_path / "pooled", relu_sae("pooled", torch.eye(3), encoder_sha256="0" * 64))
    regions = read_regions(folder / "masks", table)
    made = compare(store, [sae, corner, pooled], table, tmp_path / "out", regions=regions,
                   resampling=Resampling(20), progress=False)  # fmt: skip
    looks = {one.name: one for one in Comparison.open(tmp_path / "out").localisation}
    assert set(looks) == {"sae", "corner", "untrained sae", "untrained corner", "neurons of h"}
    alone = next(u for u in found.units if u.name == "sae")
    assert looks["sae"].figures == {name: alone.mean(name)[0] for name in FIGURES}
    assert looks["sae"].figures["mass"] > looks["corner"].figures["mass"]
    assert "Where each finding's top unit looks" in str(made)
    assert Localisation.open(tmp_path / "out" / "scores").units[0].best("spot").unit == 0
    with pytest.raises(MedSAEError, match="no SAE stands at a hook"):
        compare(store, [pooled], table, tmp_path / "none", regions=regions, resampling=Resampling(20), progress=False)
    with pytest.raises(MedSAEError, match="leave the folds out"):
        compare(store, [sae], table, tmp_path / "folds", regions=regions, folds=Folds(3), progress=False)
