"""Regions of each format, matched with a table's images and brought to their pixels."""

import json

import numpy as np
import pandas as pd
import pydicom
import pytest
from helpers.extending import run
from helpers.pictures import dicom
from PIL import Image

from medsae_plugin import MedSAEError, read_regions, read_table
from medsae_plugin.data.images import image_shape, read_image
from medsae_plugin.data.regions import REGION_FORMATS, Runs
from medsae_plugin.phantoms import Case, draw_case, generate


def images(folder, *names, shape=(40, 60), labels="Cardiomegaly,Effusion,Lung Opacity"):
    """A plain table of black images of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", shape[::-1]).save(folder / name)
    cells = ",0" * len(labels.split(",")) if labels else ""
    head = f"path{',' + labels if labels else ''}"
    (folder / "table.csv").write_text("\n".join([head, *(name + cells for name in names)]) + "\n")
    return read_table(folder / "table.csv", patients_are_images=True)


def written(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def refused(path, table, **options):
    with pytest.raises(MedSAEError) as caught:
        read_regions(path, table, **options)
    return str(caught.value)


def rectangle(top, left, bottom, right, shape):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_contours_and_run_lengths_of_chexlocalize(tmp_path):
    paths = ["valid/patient1/study1/view1_frontal.png", "valid/patient1/study2/view1_frontal.png"]
    table = images(tmp_path, *paths)
    name, other, strange = (f"patient{i}_study{j}_view1_frontal" for i, j in ((1, 1), (1, 2), (9, 1)))
    square = [[20, 8], [60, 8], [60, 32], [20, 32]]
    contours = {
        name: {"img_size": [80, 120], "Airspace Opacity": [square, [[1, 1], [2, 2]]], "Cardiomegaly": []},
        other: {"img_size": [80, 120]},
        strange: {"img_size": [10, 10], "Edema": [square]},
    }
    mask = rectangle(8, 20, 32, 60, (80, 120))
    coded = {"size": [80, 120], "counts": Runs.of(mask).counts.tolist()}
    empty = {"size": [80, 120], "counts": [9600]}
    lengths = {name: {"Airspace Opacity": coded, "Cardiomegaly": empty}, other: {"Edema": empty}, strange: {}}
    for path in (written(tmp_path, "c.json", contours), written(tmp_path, "r.json", lengths)):
        regions = read_regions(path, table)
        assert regions.findings == ("Lung Opacity",) and regions.named == set(paths) and len(regions) == 1
        region = regions[paths[0]]["Lung Opacity"]
        np.testing.assert_array_equal(region.mask(), rectangle(4, 10, 16, 30, (40, 60)))
        assert region.kind == "masks" and not regions[paths[1]]
        said = regions.describe()
        assert "2 images, 1 have regions, 1 are named without one, 0 are not named" in said
        assert f"1 images that it names are not of the table, such as {strange!r}" in said
        assert "'Airspace Opacity' as 'Lung Opacity'" in said and "1 images have other pixels" in said
    assert "fewer than three points enclose nothing (1)" in read_regions(tmp_path / "c.json", table).describe()


def test_nihs_boxes_as_published(tmp_path):
    table = images(tmp_path, "00000001_000.png", "00000001_001.png", shape=(64, 64), labels="Effusion,Infiltration")
    rows = "00000001_000.png,Infiltrate,256,128,512,64,,,\n00000009_000.png,Effusion,1,2,3,4,,,\n"
    # As published (nine names over six columns), and as pandas writes it again.
    for head, cells in (("Bbox [x,y,w,h],,,", rows.replace(",,,\n", "\n")), ("Bbox [x,y,w,h],a,b,c", rows)):
        path = written(tmp_path, "BBox_List_2017.csv", f"Image Index,Finding Label,{head}\n{cells}")
        regions = read_regions(path, table)
        region = regions["00000001_000.png"]["Infiltration"]
        np.testing.assert_allclose(region.boxes(), [[16, 8, 48, 12]])
        np.testing.assert_array_equal(region.mask(), rectangle(8, 16, 12, 48, (64, 64)))
        assert region.kind == "boxes" and region.area() == 512 * 64 / 1024**2
        assert "'Infiltrate' as 'Infiltration'" in regions.describe() and "1024 x 1024" in regions.describe()


def test_rsnas_boxes_and_images_without(tmp_path):
    table = images(tmp_path, "a.png", "b.png", "c.png", shape=(512, 512))
    text = "patientId,x,y,width,height,Target\na,100,200,300,400,1\na,500.0,600,20,40,1\nb,,,,,0\n"
    regions = read_regions(written(tmp_path, "stage_2_train_labels.csv", text), table)
    np.testing.assert_allclose(regions["a.png"]["Lung Opacity"].boxes(), [[50, 100, 200, 300], [250, 300, 260, 320]])
    assert regions.named == {"a.png", "b.png"}
    assert "1 have regions, 1 are named without one, 1 are not named" in regions.describe()


def vindr(folder, columns="", cells=""):
    text = f"image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max{columns}\n"
    text += f"abc,Pleural effusion,10,R1,30,20,90,60{cells}\nabc,Pleural effusion,10,R2,60,20,120,60{cells}\n"
    return written(folder, "train.csv", text + f"def,No finding,14,R1,,,,{cells}\n")


def test_vindrs_boxes_in_pixels_of_the_dicom(tmp_path):
    dicom(tmp_path / "abc.dicom", np.arange(80 * 120, dtype=np.uint16).reshape(80, 120))
    dicom(tmp_path / "def.dicom", np.arange(80 * 120, dtype=np.uint16).reshape(80, 120))
    table = read_table(vindr(tmp_path))
    regions = read_regions(tmp_path / "train.csv", table)
    region = regions["abc.dicom"]["Pleural effusion"]
    np.testing.assert_array_equal(region.mask(), rectangle(20, 30, 60, 120, (80, 120)))
    assert region.area() == pytest.approx(90 * 40 / 9600) and regions.named == {"abc.dicom", "def.dicom"}


def test_vindrs_boxes_on_resized_images_need_the_size_of_the_originals(tmp_path):
    table = images(tmp_path, "abc.png", "def.png", labels="Effusion")
    assert "does not say how large" in refused(vindr(tmp_path), table)
    for columns in (",height,width", ""):
        if not columns:
            written(tmp_path, "train_meta.csv", "image_id,dim0,dim1\nabc,80,120\ndef,80,120\n")
        regions = read_regions(vindr(tmp_path, columns, ",80,120" if columns else ""), table)
        np.testing.assert_allclose(regions["abc.png"]["Effusion"].boxes(), [[15, 10, 45, 30], [30, 10, 60, 30]])


def rle2mask(text):
    """As SIIM's own code had it: starts from the end of the run before, column after column."""
    mask, position = np.zeros(1024 * 1024), 0
    numbers = list(map(int, text.split()))
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        position += start
        mask[position : position + length] = 1
        position += length
    return mask.reshape(1024, 1024).T > 0


def test_siims_run_lengths_are_relative(tmp_path):
    runs = ["557374 2 1015 8 1009 14 1002 20", "100 60 964 70"]
    table = images(tmp_path, "1.2.3.png", "1.2.4.png", shape=(1024, 1024), labels="Pneumothorax")
    text = f"ImageId, EncodedPixels\n1.2.3,{runs[0]}\n1.2.3, {runs[1]}\n1.2.4,-1\n"
    regions = read_regions(written(tmp_path, "train-rle.csv", text), table)
    np.testing.assert_array_equal(regions["1.2.3.png"]["Pneumothorax"].mask(), rle2mask(runs[0]) | rle2mask(runs[1]))
    assert regions.named == {"1.2.3.png", "1.2.4.png"} and len(regions) == 1


def test_cocos_boxes_polygons_and_run_lengths(tmp_path):
    table = images(tmp_path, "x/a.png", "x/b.png", "x/c.png", "x/d.png")
    mask = rectangle(5, 10, 15, 30, (40, 60))
    coded = {"size": [40, 60], "counts": Runs.of(mask).counts.tolist()}
    packed = {"size": [40, 60], "counts": "Y<:n0:n0"}
    shown = [{"id": i, "file_name": f"x/{name}.jpg", "height": 40, "width": 60} for i, name in enumerate("abcd")]
    polygon = [[10, 5, 30, 5, 30, 15, 10, 15]]
    segments = [polygon, coded, [], coded]
    annotations = [
        {"id": i, "image_id": i, "category_id": 7, "bbox": [10, 5, 20, 10], "segmentation": segment}
        for i, segment in enumerate(segments[:3])
    ]
    said = {"images": shown, "annotations": annotations, "categories": [{"id": 7, "name": "Cardiomegaly"}]}
    regions = read_regions(written(tmp_path, "coco.json", said), table)
    for name, kind in (("a", "masks"), ("b", "masks"), ("c", "boxes")):
        region = regions[f"x/{name}.png"]["Cardiomegaly"]
        np.testing.assert_array_equal(region.mask(), mask)
        assert region.kind == kind
    assert "x/d.png" in regions.named and not regions["x/d.png"]
    said["annotations"][0]["segmentation"] = packed
    message = refused(written(tmp_path, "coco.json", said), table)
    assert "annotation" in message or "image 3" in message
    assert "not as coco has its regions" in message


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (
            [[10, 5, 90, 5, 90, 15, 10, 15]],
            "annotation 0: what goes from column 10, row 5 to column 90, row 15 reaches",
        ),
        ([[10, 5, float("nan"), 5, 30, 15]], "no numbers"),
        ([[10, 5, 3]], "not as coco has its regions"),
        ({"size": [40, 60], "counts": [100.5, 2299.5]}, "no whole numbers"),
        ({"size": [40, 60], "counts": [100, 50]}, "run lengths of 150 pixels, of 40 x 60"),
        ({"size": [20, 60], "counts": [1200]}, "of an image of (40, 60)"),
        ({"size": [40, 60]}, "no 'counts'"),
    ],
)
def test_annotations_of_coco_that_are_none_are_refused(tmp_path, segmentation, words):
    annotation = {"id": 0, "image_id": 0, "category_id": 0, "segmentation": segmentation}
    image = {"id": 0, "file_name": "a.png", "height": 40, "width": 60}
    said = {"images": [image], "annotations": [annotation], "categories": [{"id": 0, "name": "Edema"}]}
    assert words in refused(written(tmp_path, "coco.json", said), images(tmp_path, "a.png"))


def test_a_folder_of_masks_whose_name_says_what_they_are(tmp_path):
    table = images(tmp_path, "cxr/p1/1.jpg", "cxr/p2/1.jpg", "cxr/p3/1.jpg")
    mask = rectangle(5, 10, 15, 30, (40, 60))
    for k, (name, inside) in enumerate((("p1/1.png", 255), ("p2/1.png", 1))):
        (tmp_path / "lungs" / name).parent.mkdir(parents=True)
        Image.fromarray(mask.astype(np.uint8) * inside * (k == 0)).save(tmp_path / "lungs" / name)
    regions = read_regions(tmp_path / "lungs", table)
    np.testing.assert_array_equal(regions["cxr/p1/1.jpg"]["lungs"].mask(), mask)
    assert "'lungs'" in regions.describe() and "kept as they are called" in regions.describe()
    assert regions.named == {"cxr/p1/1.jpg", "cxr/p2/1.jpg"} and len(regions) == 1  # the second is empty


@pytest.mark.parametrize("names", [("pleural_effusion", "Cardiomegaly"), ("heart", "left lung")])
def test_a_folder_of_masks_with_a_folder_a_finding(tmp_path, names):
    table = images(tmp_path, "cxr/1.jpg", "cxr/2.jpg")
    for name in names:
        (tmp_path / "masks" / name).mkdir(parents=True)
        Image.new("1", (120, 80), 1).save(tmp_path / "masks" / name / "1.png")
    regions = read_regions(tmp_path / "masks", table)
    expected = {"pleural_effusion": "Effusion"}  # as the table's label that means the same
    assert set(regions["cxr/1.jpg"]) == {expected.get(name, name) for name in names}
    assert regions["cxr/1.jpg"][regions.findings[0]].mask().all()


@pytest.mark.parametrize(("values", "words"), [([0, 1, 2], "3 values"), ([3, 7], "2 values")])
def test_what_is_no_mask_is_refused(tmp_path, values, words):
    table = images(tmp_path, "1.png")
    (tmp_path / "lungs").mkdir()
    Image.fromarray(np.resize(np.array(values, np.uint8), (40, 60))).save(tmp_path / "lungs" / "1.png")
    assert words in refused(tmp_path / "lungs", table)
    Image.fromarray(np.resize(np.array([0, 255, 255], np.uint8), (40, 60, 3))[..., [0, 1, 0]]).save(
        tmp_path / "lungs" / "1.png"
    )
    assert "colours" in refused(tmp_path / "lungs", table) or "values" in refused(tmp_path / "lungs", table)
    (tmp_path / "lungs" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "1.png" in refused(tmp_path / "lungs", table)


def test_phantoms_truth_is_drawn_again(tmp_path):
    table = read_table(generate(6, tmp_path / "set", seed=3, size=64, workers=0))
    lines = [json.loads(line) for line in (tmp_path / "set" / "truth.jsonl").read_text().splitlines()]
    for source in (tmp_path / "set", tmp_path / "set" / "truth.jsonl"):
        regions = read_regions(source, table)
        assert len(regions.named) == 6
        for told in lines:
            masks = draw_case(Case(**told["case"]), size=64).masks
            assert set(regions[told["path"]]) == {name for name, mask in masks.items() if mask.any()}
            for name, region in regions[told["path"]].items():
                np.testing.assert_array_equal(region.mask(), masks[name])
    path = next(told["path"] for told in lines if any(told["boxes"].values()))
    for told in lines:
        told["case"]["study_seed"] += 1
    (tmp_path / "set" / "truth.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(MedSAEError, match="another version of the phantoms"):
        for region in read_regions(tmp_path / "set", table)[path].values():
            region.mask()


RSNA = "patientId,x,y,width,height,Target\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,0,0,2000,10,1", "line 2: what goes from column 0, row 0 to column 2000, row 10 reaches beyond its image"),
        ("a,10,10,0,10,1", "has no area"),
        ("a,10,ten,5,10,1", "could not convert string to float: 'ten'"),
        ("a,10,,5,10,1", "not as rsna has its regions"),
        ("z,10,10,5,10,1", "none of its 1 images, such as 'z', is an image of the table, such as 'a.png'"),
    ],
)
def test_boxes_that_are_none_are_refused(tmp_path, row, words):
    assert words in refused(written(tmp_path, "b.csv", RSNA + row + "\n"), images(tmp_path, "a.png", shape=(64, 64)))


def test_an_image_of_another_aspect_is_refused(tmp_path):
    path = written(tmp_path, "b.csv", RSNA + "a,10,10,5,10,1\n")
    message = refused(path, images(tmp_path, "a.png", shape=(64, 80)))
    assert "a.png has 64 rows and 80 columns" in message and "1024 x 1024" in message and "another aspect" in message
    assert len(read_regions(path, images(tmp_path, "a.png", shape=(64, 65)))) == 1  # a pixel of rounding


def test_a_box_a_little_beyond_is_cut_and_an_image_that_is_not_there_is_said(tmp_path):
    table = images(tmp_path, "a.png", "b.png", shape=(64, 64))
    path = written(tmp_path, "b.csv", RSNA + "a,-3,1000,40,30,1\nb,0,0,512,512,1\n")
    (tmp_path / "b.png").unlink()
    regions = read_regions(path, table)
    np.testing.assert_allclose(regions["a.png"]["Lung Opacity"].boxes(), [[0, 62.5, 37 / 16, 64]])
    assert "1 boxes reach a little beyond" in regions.describe() and "1 images cannot be opened" in regions.describe()
    assert regions["b.png"]["Lung Opacity"].area() == 0.25


def test_names_that_could_be_several_images_are_refused(tmp_path):
    table = images(tmp_path, "x/a.png", "y/a.png", shape=(64, 64))
    assert "is the end of 2 images' paths" in refused(written(tmp_path, "b.csv", RSNA + "a,,,,,0\n"), table)
    both = written(tmp_path, "c.csv", RSNA + "x/a,,,,,0\nfar/x/a.png,,,,,0\n")
    assert "are both the image 'x/a.png'" in refused(both, table)
    # Another patient's image of the same name is not taken for it.
    other = written(tmp_path, "d.csv", RSNA + "z/a,1,1,5,5,1\nx/a,,,,,0\n")
    assert not len(read_regions(other, table))


def test_formats_are_named_or_recognised(tmp_path):
    table = images(tmp_path, "a.png", shape=(64, 64))
    path = written(tmp_path, "b.csv", RSNA + "a,1,1,5,5,1\n")
    assert "format rsna (its columns" in read_regions(path, table).describe()
    assert "format rsna (as was said)" in read_regions(path, table, format="rsna").describe()
    assert "no format of regions 'xyz'; there are chexlocalize," in refused(path, table, format="xyz")
    for named in (each.name for each in REGION_FORMATS if each.name not in ("rsna", "masks")):
        message = refused(path, table, format=named)
        assert "not as" in message or "names no image" in message
    strange = written(tmp_path, "s.csv", "a,b\n1,2\n")
    assert "no format that is known here" in refused(strange, table)
    for content in ("{", "[]", "{}", '{"a": 1}', '{"a": {"img_size": [1]}}'):
        assert "s.json" in refused(written(tmp_path, "s.json", content), table)
    assert "there are no regions at" in refused(tmp_path / "nothing", table)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_shape_of_an_image_is_that_it_is_read_in(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (30, 20)).save(tmp_path / f"a.{suffix}", **({} if suffix == "bmp" else {"exif": exif}))
    shape = image_shape(tmp_path / f"a.{suffix}")
    assert shape == read_image(tmp_path / f"a.{suffix}").size[::-1]
    assert suffix == "bmp" or shape == ((30, 20) if orientation > 4 else (20, 30))


def test_the_shape_of_a_dicom_file(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.arange(20 * 30, dtype=np.uint16).reshape(20, 30))
    assert image_shape(path or tmp_path / "a.dcm") == (20, 30)
    content = pydicom.dcmread(tmp_path / "a.dcm")
    assert (content.Rows, content.Columns) == (20, 30)


OWN = """
import json
from medsae_plugin.data.regions import REGION_FORMATS, Annotation, Box, RegionFormat

def read(source):
    for image, (left, top, right, bottom) in source.json["ours"].items():
        yield Annotation(image, f"image {image}", "Edema", (Box(left, top, right, bottom, (64, 64)),))

def ours(source):
    return "its object 'ours'" if isinstance(source.json, dict) and "ours" in source.json else None

REGION_FORMATS.append(RegionFormat("ours", ours, read))
"""


def test_an_own_format_is_read_by_the_command(tmp_path):
    images(tmp_path, "a.png", shape=(64, 64), labels="Edema")
    written(tmp_path, "own.json", {"ours": {"a": [0, 0, 32, 16]}})
    (tmp_path / "my_format.py").write_text(OWN)
    words = ["table", "table.csv", "--patients-are-images", "--regions", "own.json", "--workers", "0", "--quiet"]
    done = run(tmp_path, "--import", "my_format", *words)
    assert done.returncode == 0, done.stderr
    assert "format ours (its object 'ours')" in done.stdout
    assert ["Edema", "1", "1", "boxes", "12.50%"] in [line.split()[:5] for line in done.stdout.splitlines()]
    assert pd.read_csv(tmp_path / "table.csv").shape == (1, 2)
