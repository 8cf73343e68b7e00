"""Composites of two radiographs: the fit worked out otherwise, and a linear encoder found to be linear."""

import numpy as np
import pytest
import torch
from PIL import Image

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.causal import Linearity, linearity
from medsae_plugin.causal.composites import fit
from medsae_plugin.cli import main


def test_a_fit_is_numpys_least_squares_row_by_row():
    left, right, both = torch.randn(3, 7, 9, generator=torch.Generator().manual_seed(1))
    weights, cosines = [], []
    for a, b, c in zip(left.double().numpy(), right.double().numpy(), both.double().numpy(), strict=True):
        w = np.linalg.lstsq(np.stack([a, b], 1), c, rcond=None)[0]
        f = w[0] * a + w[1] * b
        weights.append(w)
        cosines.append(f @ c / np.linalg.norm(f) / np.linalg.norm(c))
    found = fit(left, right, both)
    np.testing.assert_allclose([found.left, found.right], np.mean(weights, 0), atol=1e-9)
    np.testing.assert_allclose(found.cosine, np.mean(cosines), atol=1e-9)
    exact = fit(left, right, 0.25 * left + 0.5 * right)
    assert (exact.left, exact.right, exact.cosine) == pytest.approx((0.25, 0.5, 1), abs=1e-6)


class Halves:
    """An encoder whose embedding is the mean of each of an image's columns of 8 pixels, at 64 x 64: linear in
    pixels."""

    name, weights_sha256, device = "halves", "0" * 64, torch.device("cpu")

    def preprocess(self, images):
        arrays = [np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX), np.float32) for image in images]
        return torch.from_numpy(np.stack(arrays))

    def __call__(self, pixels):
        return pixels.reshape(len(pixels), 64, 8, 8).mean((1, 3))


@pytest.fixture
def table(tmp_path):
    """Four patients, whose pictures are grey ramps: of no use are their fits by the others'."""
    lines = ["path,patient,Edema"]
    for k in range(4):
        rng = np.random.default_rng(k)
        Image.fromarray(np.repeat(rng.integers(0, 255, (1, 64), np.uint8), 64, 0)).save(tmp_path / f"{k}.png")
        lines.append(f"{k}.png,p{k},0")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return read_table(tmp_path / "labels.csv")


def test_composites_hold_both_halves_and_unreadable_pairs_are_counted(table, tmp_path):
    found = linearity(Halves(), table, pairs=40, progress=False)
    # A composite's left half holds the left radiograph at half its scale, so its embedding is no sum of the two.
    assert found.pairs == 40 and found.unreadable_pairs == 0
    assert 0.5 < found.parts.cosine < 1 and "side by side." in str(found)
    found.save(tmp_path)
    assert Linearity.open(tmp_path) == found == linearity(Halves(), table, pairs=40, progress=False)
    (tmp_path / "0.png").write_bytes(b"")
    fewer = linearity(Halves(), table, pairs=40, progress=False)
    assert 0 < fewer.unreadable_pairs < 40 and fewer.pairs + fewer.unreadable_pairs == 40
    for k in range(1, 4):
        (tmp_path / f"{k}.png").write_bytes(b"")
    with pytest.raises(MedSAEError, match="fewer than two pairs"):
        linearity(Halves(), table, pairs=4, progress=False)


def test_the_command_prints_and_writes(table, tmp_path, capsys):
    words = ["linearity", "phantom-swin", "--table", str(tmp_path / "labels.csv"), "--pairs", "6", "--quiet"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (
        "phantom-swin: embeddings of 6 pairs of radiographs side by side." in printed and "two other images" in printed
    )
    assert Linearity.open(tmp_path).seed == 0
