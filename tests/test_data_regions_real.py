"""Regions that radiologists drew, read from what was published. None is in the repository."""

import numpy as np
import pandas as pd
import pytest
from helpers.published import published
from PIL import Image

from medsae_plugin import MedSAEError, read_regions, read_table
from medsae_plugin.cli import main
from medsae_plugin.encoders.preprocessing import Preprocessor


@pytest.fixture(scope="module")
def chexlocalize(shared):
    folder = shared / "chexlocalize"
    if not folder.is_dir():
        pytest.skip(f"no CheXlocalize sample at {folder}")
    return folder


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_contours_of_chexlocalize_are_its_run_lengths(chexlocalize):
    table = read_table(chexlocalize / "valid.csv")
    contours = read_regions(chexlocalize / "gt_annotations_val.json", table)
    lengths = read_regions(chexlocalize / "gt_segmentations_val.json", table)
    expected = {
        "patient64541": {"Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"},
        "patient64542": {"Support Devices"},
    }
    assert len(contours) == len(lengths) == 2
    for path in table.frame["path"]:
        found = expected[path.split("/")[-3]]
        assert set(contours[path]) == set(lengths[path]) == found
        size = Image.open(table.root / path).size[::-1]
        for finding in found:
            ours, theirs = contours[path][finding], lengths[path][finding]
            assert ours.image == ours.mask().shape == size
            assert iou(ours.mask(), theirs.mask()) > 0.97
            # Theirs draw the outline too, a pixel wide.
            np.testing.assert_allclose([theirs.area(), ours.mask().mean()], ours.area(), rtol=0.03)


def test_run_lengths_of_chexlocalize_are_decoded_as_coco_does(chexlocalize):
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed (extra test)")
    import json

    table = read_table(chexlocalize / "valid.csv")
    regions = read_regions(chexlocalize / "gt_segmentations_val.json", table)
    told = json.loads((chexlocalize / "gt_segmentations_val.json").read_text())
    for path in table.frame["path"]:
        name = "_".join(path.rpartition(".")[0].split("/")[-3:])
        for finding, region in regions[path].items():
            theirs = "Airspace Opacity" if finding == "Lung Opacity" else finding
            coded = told[name][theirs]
            mask = coco.decode({"size": coded["size"], "counts": coded["counts"].encode()}).astype(bool)
            np.testing.assert_array_equal(region.parts[0].drawn(), mask)


def test_an_image_that_was_stretched_is_refused(chexlocalize, tmp_path):
    table = read_table(chexlocalize / "valid.csv")
    for path in table.frame["path"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.open(table.root / path).resize((224, 224)).save(tmp_path / path)
    with pytest.raises(MedSAEError, match="another aspect"):
        read_regions(chexlocalize / "gt_annotations_val.json", read_table(chexlocalize / "valid.csv", tmp_path))


def test_real_lungs(shared):
    folder = shared / "realcxr"
    if not (folder / "lungs").is_dir():
        pytest.skip(f"no lung masks at {folder}/lungs")
    table = read_table(folder / "labels.csv")
    regions = read_regions(folder / "lungs", table)
    assert len(regions) == 89 and regions.findings == ("lungs",)
    crop = Preprocessor("L", 224, "crop", "bicubic", (0.5,), (0.5,))
    for k, (path, found) in enumerate(regions.by_path.items()):
        region, file = found["lungs"], folder / "lungs" / path.removeprefix("covid/").replace(".jpg", ".png")
        np.testing.assert_array_equal(region.mask(), np.asarray(Image.open(file)))
        assert region.mask().shape == Image.open(folder / path).size[::-1] and 0.05 < region.area() < 0.7
        if k % 4:
            continue
        # Through the encoder's preprocessing: as its mask goes through as an image.
        seen = crop.to_array(Image.open(file).convert("L")) / 255
        assert iou(region.cover(crop.framing(region.image).edges()) >= 0.5, seen >= 0.5) > 0.97


def test_the_table_command_prints_them(shared, chexlocalize, capsys):
    words = ["table", str(chexlocalize / "valid.csv"), "--workers", "0", "--quiet", "--regions"]
    assert main([*words, str(chexlocalize / "gt_annotations_val.json")]) == 0
    said = capsys.readouterr().out
    assert "regions of 2 images, format chexlocalize (an object an image, with img_size)" in said
    assert ["Lung", "Opacity", "1", "1", "masks", "2.48%"] in [line.split()[:6] for line in said.splitlines()]


def test_boxes_of_nih():
    path = published("BBox_List_2017.csv.gz")
    regions = read_regions(path, read_table(published("Data_Entry_2017_v2020.csv.gz")))
    frame = pd.read_csv(path, skiprows=1, header=None, names=["image", "finding", "x", "y", "w", "h"])
    frame["finding"] = frame["finding"].replace("Infiltrate", "Infiltration")
    assert len(regions) == frame["image"].nunique()
    by_finding = {finding: sum(finding in found for found in regions.by_path.values()) for finding in regions.findings}
    assert by_finding == frame.groupby("finding")["image"].nunique().to_dict()
    boxes = np.concatenate([region.boxes() for found in regions.by_path.values() for region in found.values()])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert areas.sum() == pytest.approx((frame["w"] * frame["h"]).sum(), rel=1e-3)


def test_boxes_of_rsna():
    path = published("kaggle_stage_2_train_labels.csv.zip")
    regions, frame = read_regions(path, read_table(path)), pd.read_csv(path).dropna()
    boxes = [found["Lung Opacity"].boxes() for found in regions.by_path.values()]
    assert len(regions) == frame["patientId"].nunique() and sum(map(len, boxes)) == len(frame)
    assert np.concatenate(boxes).sum() == pytest.approx(
        (2 * frame["x"] + 2 * frame["y"] + frame["width"] + frame["height"]).sum()
    )


def test_masks_of_siim():
    path = published("siim-pneumothorax-train-rle.csv.gz")
    regions, frame = read_regions(path, read_table(path)), pd.read_csv(path, skipinitialspace=True)
    frame = frame[frame["EncodedPixels"].str.strip() != "-1"]
    assert len(regions) == frame["ImageId"].nunique()
    inside = frame["EncodedPixels"].map(lambda runs: sum(map(int, runs.split()[1::2]))).groupby(frame["ImageId"]).sum()
    single = frame["ImageId"].value_counts()
    for image in single[single == 1].index[:50]:
        region = next(regions.by_path[path]["Pneumothorax"] for path in regions.by_path if path.startswith(image + "."))
        assert region.mask().sum() == inside[image]


def test_boxes_of_vindr_without_its_images_are_left_aside():
    path = published("vinbigdata-train.csv.gz")
    regions, frame = read_regions(path, read_table(path)), pd.read_csv(path)
    with_boxes = frame.dropna(subset="x_min")["image_id"].nunique()
    assert f"{with_boxes:,} images cannot be opened" in regions.describe() and not len(regions)
