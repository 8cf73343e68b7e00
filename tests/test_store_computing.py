"""The precision that an encoder computes in: the choice, its bounds, and the stores of each."""

import json
import shutil

import pytest
import torch
from helpers.extraction_case import EMBEDDING, SPATIAL, make_images, tiny_encoder
from torch import nn

from medsae_plugin import MedSAEError
from medsae_plugin.cli import main
from medsae_plugin.data.tables import scan_folder
from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.phantoms import generate
from medsae_plugin.precision import LEAST_COSINE, MOST_NOISE, Agreement, Precision
from medsae_plugin.store import ActivationStore, computing, extract, plan_extraction

QUIET = {"workers": 0, "progress": False}


@pytest.fixture
def bf16_chip(monkeypatch):
    """A chip that computes in bfloat16, whatever this one does."""
    monkeypatch.setattr("medsae_plugin.precision.computes_in_bfloat16", lambda device: True)


@pytest.fixture
def fp32_chip(monkeypatch):
    monkeypatch.setattr("medsae_plugin.precision.computes_in_bfloat16", lambda device: False)


@pytest.fixture
def table(tmp_path):
    return make_images(tmp_path / "images", 14)


def rows_of(store: ActivationStore, hook: str) -> torch.Tensor:
    return torch.cat([rows for _, rows in store.image_batches(hook)])


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = a.double(), b.double()
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def dtype_said(store: ActivationStore) -> str:
    return json.loads((store.path / "manifest.json").read_text())["encoder"]["dtype"]


def test_phantom_swin_in_bf16_is_within_the_bounds_and_auto_takes_it(tmp_path, bf16_chip):
    encoder = HookedVisionEncoder.from_pretrained("phantom-swin")
    table = scan_folder(generate(40, tmp_path / "phantoms", seed=1, workers=0).parent / "images")
    hooks = ["stages.1.blocks.1.hook_resid_post", EMBEDDING]
    options = {**QUIET, "positions": "sample:4"}
    stores = {p: extract(encoder, table, hooks, tmp_path / p, precision=p, **options) for p in ("fp32", "bf16", "auto")}
    for hook in hooks:
        exact, coarse = rows_of(stores["fp32"], hook), rows_of(stores["bf16"], hook)
        assert not torch.equal(exact, coarse)
        assert cosines(exact, coarse).min() > LEAST_COSINE
        variance = (exact - exact.mean(0)).square().sum()
        assert (exact - coarse).square().sum() / variance < MOST_NOISE
        assert torch.equal(coarse, rows_of(stores["auto"], hook))
    assert {p: dtype_said(store) for p, store in stores.items()} == {
        "fp32": "float32",
        "bf16": "bfloat16 autocast",
        "auto": "bfloat16 autocast",
    }


def test_the_encoder_is_afterwards_what_it_was(tmp_path, table):
    encoder = tiny_encoder()
    before = {name: (w.clone(), w.stride()) for name, w in encoder.vision_model.state_dict().items()}
    tf32 = torch.backends.cudnn.allow_tf32
    with computing.computing_in(encoder, "bf16"):
        assert encoder(torch.zeros(2, 3, 32, 32)).dtype == torch.bfloat16
    extract(encoder, table, EMBEDDING, tmp_path / "store", precision="bf16", **QUIET)
    for name, w in encoder.vision_model.state_dict().items():
        assert torch.equal(w, before[name][0]) and w.stride() == before[name][1]
    assert not torch.is_autocast_enabled("cpu") and torch.backends.cudnn.allow_tf32 == tf32
    assert extract(encoder, table, EMBEDDING, tmp_path / "exact", **QUIET).verify() == []


class Cancelling(nn.Module):
    """Adds a large number to what it is given and takes it away again: rounding to bfloat16 in between loses it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.large = nn.Linear(6, 6)
        with torch.no_grad():
            self.large.weight.copy_(torch.eye(6))
            self.large.bias.fill_(10.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.large(self.inner(x)).float() - 10.0


class Shifted(Cancelling):
    """Rows of a large mean, beside which their differences are lost: cosines are near 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 10.0


@pytest.mark.parametrize(("planted", "cosine_fails"), [(Cancelling, True), (Shifted, False)])
def test_auto_keeps_to_fp32_where_bf16_fails_a_bound_and_says_why(
    tmp_path, table, bf16_chip, capsys, planted, cosine_fails
):
    encoder = tiny_encoder()
    encoder.projection_head = planted(encoder.projection_head).eval()
    stores = {p: extract(encoder, table, EMBEDDING, tmp_path / p, precision=p, **QUIET) for p in ("fp32", "bf16")}
    exact, coarse = (rows_of(stores[p], EMBEDDING) for p in ("fp32", "bf16"))
    assert (cosines(exact, coarse).min() < LEAST_COSINE) == cosine_fails
    assert (exact - coarse).square().sum() > MOST_NOISE * (exact - exact.mean(0)).square().sum()
    auto = extract(encoder, table, EMBEDDING, tmp_path / "auto", precision="auto", workers=0)
    line = capsys.readouterr().err
    assert "computed in fp32 (auto: 14 rows in bf16 have cosines of " in line
    assert f"auto wants above {LEAST_COSINE} and below {MOST_NOISE})" in line
    assert dtype_said(auto) == "float32" and torch.equal(rows_of(auto, EMBEDDING), exact)
    assert "precision" not in capsys.readouterr().err


def test_auto_on_a_chip_without_bfloat16(tmp_path, table, fp32_chip):
    plan = plan_extraction(tiny_encoder(), table, EMBEDDING, tmp_path / "store", precision="auto", workers=0)
    assert "computed in fp32 (auto: no bfloat16 in this chip (cpu)); " in str(plan)
    store = extract(tiny_encoder(), table, EMBEDDING, tmp_path / "store", precision="auto", **QUIET)
    assert dtype_said(store) == "float32"


def test_a_store_is_of_one_precision(tmp_path, table, bf16_chip):
    """One whose end is missing, as an interruption leaves it."""
    options = {**QUIET, "images_per_shard": 4}
    for begun, other in (("bf16", "fp32"), ("fp32", "bf16")):
        out = tmp_path / begun
        whole = extract(tiny_encoder(), table, [SPATIAL, EMBEDDING], out, precision=begun, **options)
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        (out / "shard-00002.safetensors").unlink()
        with pytest.raises(MedSAEError, match=rf"was begun in {begun}, .* --precision {begun} \(or auto"):
            extract(tiny_encoder(), table, [SPATIAL, EMBEDDING], out, precision=other, **options)
        assert not (out / "shard-00002.safetensors").exists()
        planned = plan_extraction(
            tiny_encoder(), table, [SPATIAL, EMBEDDING], out, precision="auto", workers=0, images_per_shard=4
        )
        assert planned.images_left == 4 and planned.precision == Precision(begun, "auto: as the store was begun")
        extract(tiny_encoder(), table, [SPATIAL, EMBEDDING], out, precision="auto", **options)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == files and whole.verify() == []


def test_what_is_no_precision_and_what_has_its_own(tmp_path, table):
    with pytest.raises(MedSAEError, match="precision 'tf32': use auto, fp32, bf16"):
        extract(tiny_encoder(), table, EMBEDDING, tmp_path / "store", precision="tf32", **QUIET)
    double = tiny_encoder().double()
    with pytest.raises(MedSAEError, match=r"tiny-swin is in torch\.float64 itself"):
        extract(double, table, EMBEDDING, tmp_path / "store", precision="bf16", **QUIET)
    assert not (tmp_path / "store").exists()
    assert dtype_said(extract(double, table, EMBEDDING, tmp_path / "store", **QUIET)) == "float64"


def test_nothing_to_check_on(tmp_path, bf16_chip):
    table = make_images(tmp_path / "images", 9, broken=range(9))
    plan = plan_extraction(tiny_encoder(), table, EMBEDDING, tmp_path / "store", precision="auto", workers=0)
    assert plan.precision == Precision("fp32", "auto: there is nothing to check bf16 on")


def test_the_command(tmp_path, capsys, bf16_chip):
    make_images(tmp_path / "images", 12)
    images = ["--images", str(tmp_path / "images"), "--patients-are-images", "--workers", "0"]
    command = ["extract", "phantom-swin", *images, "--out", str(tmp_path / "store")]
    assert main([*command, "--plan"]) == 0
    assert "computed in fp32; " in capsys.readouterr().out
    assert main([*command, "--precision", "auto"]) == 0
    err = capsys.readouterr().err
    assert "computed in bf16 (auto: 12 rows in bf16 have cosines of 0.999" in err, err
    shutil.rmtree(tmp_path / "images" / "patient00000")  # of another table, and so of another store
    assert main([*command, "--precision", "fp32"]) == 1
    assert "was begun in bf16" in capsys.readouterr().err


@pytest.mark.parametrize("batches", [1, 4])
def test_agreement_is_cosine_and_share_of_variance(batches):
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(40, 5, generator=generator) + 100
    coarse = exact + 0.1 * torch.randn(40, 5, generator=generator)
    agreement = Agreement()
    for a, b in zip(exact.chunk(batches), coarse.chunk(batches), strict=True):
        agreement.add(a, b)
    assert agreement.rows == 40
    assert agreement.cosine == pytest.approx(float(cosines(exact, coarse).min()), abs=1e-12)
    error, variance = (exact - coarse).double().square().sum(), (40 - 1) * exact.double().var(0).sum()
    assert agreement.noise == pytest.approx(float(error / variance), rel=1e-9)


def test_agreement_at_its_edges():
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    same, constant, broken = Agreement(), Agreement(), Agreement()
    same.add(zero, zero)
    constant.add(one, one * 1.5)
    broken.add(one, torch.full((2, 3), torch.nan))
    assert (same.cosine, same.noise) == (1, 0) and Precision.checked([same]).name == "bf16"
    assert constant.noise == torch.inf and Precision.checked([same, constant]).name == "fp32"
    assert broken.cosine == -1 and Precision.checked([same, broken]).name == "fp32"
