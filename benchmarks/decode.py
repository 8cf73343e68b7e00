"""How many images a second one core decodes, and how many cores feed a GPU: `python benchmarks/decode.py`.

Each kind of file is a drawn radiograph with a film's noise, read as extraction reads it (file to 8-bit grey), and
brought to 224 px. The time is the process's own, the best of `--repeats`: other work only slows one down.

Cores for a GPU are arithmetic, and no GPU is measured: its images a second (`--gpu`) over those of a core. The default
is ViT-B/16 at 224 px, 35.2 GFLOP an image, in float32 on an H100 SXM, 67 TFLOP/s, at half of that peak: 952 a second.

`--draft` measures JPEG's draft mode, which decodes at a half, a quarter or an eighth of the size: how much faster it
is, and how far the 224 px image is from that of the whole file, in grey levels. The package does not use it.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, generate_uid

from medsae_plugin.data.images import read_image
from medsae_plugin.encoders import load_card
from medsae_plugin.encoders.preprocessing import Preprocessor
from medsae_plugin.phantoms import draw_phantom

SIDE = 2800
GPU_RATE = 67e12 * 0.5 / 35.2e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gpu", type=float, default=GPU_RATE, help="images a second of the GPU (default: 952)")
    parser.add_argument("--draft", action="store_true")
    args = parser.parse_args()
    preprocessor = Preprocessor.from_config(load_card("vit-base").preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        heads = ("MB", "decode ms", "to 224 ms", "images/s a core", f"cores for {args.gpu:.0f}/s")
        print(f"{'file':<34}{heads[0]:>8}{heads[1]:>11}{heads[2]:>11}{heads[3]:>17}{heads[4]:>18}")
        for name, path in files.items():
            image = read_image(path)
            decoding = best(lambda path=path: read_image(path), args.repeats)
            fitting = best(lambda image=image: preprocessor.to_array(image), args.repeats)
            rate = 1 / (decoding + fitting)
            size, cores = path.stat().st_size / 1e6, args.gpu / rate
            times = f"{decoding * 1e3:>11.1f}{fitting * 1e3:>11.1f}"
            print(f"{name:<34}{size:>8.2f}{times}{rate:>17.0f}{cores:>18.1f}")
        if args.draft:
            draft(files[f"JPEG, {SIDE} px"], args.repeats)


def write_files(folder: Path) -> dict[str, Path]:
    """The same radiograph as each kind of file."""
    grey = radiograph(SIDE)
    deep = np.round(grey * 4095).astype(np.uint16)  # 12 bits, as of detectors
    shallow = Image.fromarray(np.round(grey * 255).astype(np.uint8))
    small = shallow.resize((320, 320), Image.Resampling.BICUBIC)
    files = {
        "JPEG, 320 px": folder / "small.jpg",
        f"JPEG, {SIDE} px": folder / "large.jpg",
        f"PNG of 16 bits, {SIDE} px": folder / "deep.png",
        f"DICOM, uncompressed, {SIDE} px": folder / "plain.dcm",
        f"DICOM, JPEG lossless, {SIDE} px": folder / "lossless.dcm",
        f"DICOM, JPEG 2000, {SIDE} px": folder / "j2k.dcm",
    }
    paths = list(files.values())
    small.save(paths[0], quality=90)
    shallow.save(paths[1], quality=90)
    Image.fromarray(deep).save(paths[2])
    dicom(paths[3], deep)
    lossless(paths[3], paths[4])
    stream = io.BytesIO()
    Image.fromarray(deep).save(stream, "JPEG2000", no_jp2=True, irreversible=False)
    dicom(paths[5], deep, stream.getvalue())
    return files


def radiograph(side: int) -> np.ndarray:
    """A drawn chest in 0..1, with the noise of a film: without it, files would be smaller than real ones."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(draw_phantom(0, size=700, view="Frontal").image)
    image = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    return np.clip(image + rng.normal(0, 0.012, image.shape), 0, 1)


def dicom(path: Path, pixels: np.ndarray, jpeg_2000: bytes | None = None) -> None:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.tobytes() if jpeg_2000 is None else pydicom.encaps.encapsulate([jpeg_2000])
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if jpeg_2000 is None else JPEG2000Lossless
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    if jpeg_2000 is not None:
        data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)


def lossless(plain: Path, target: Path) -> None:
    """The same in JPEG lossless, as archives keep it."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(target).file_meta.TransferSyntaxUID == JPEGLosslessSV1


def best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of this process."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def draft(path: Path, repeats: int) -> None:
    content = path.read_bytes()
    preprocessor = Preprocessor.from_config(load_card("vit-base").preprocessing)
    whole = Image.open(io.BytesIO(content)).convert("L")
    print(f"\n{'draft mode':<34}{'decode ms':>11}{'farthest':>11}{'over one level':>16}")
    for scale in (1, 2, 4, 8):

        def decoded(scale: int = scale) -> Image.Image:
            image = Image.open(io.BytesIO(content))
            image.draft("L", (whole.width // scale, whole.height // scale))
            return image.convert("L")

        far, share = 0, 0.0
        for fit in ("crop", "pad", "stretch"):
            fitted = replace(preprocessor, fit=fit, resize=None)
            apart = np.abs(fitted.to_array(decoded()).astype(int) - fitted.to_array(whole).astype(int))
            far, share = max(far, int(apart.max())), max(share, float((apart > 1).mean()))
        print(f"{f'1/{scale}':<34}{best(decoded, repeats) * 1e3:>11.1f}{far:>11}{share:>16.2%}")


if __name__ == "__main__":
    main()
