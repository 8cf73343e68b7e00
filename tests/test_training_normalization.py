"""MedSAE's normalisation: a mean and a scale of the training split, folded away in what is saved."""

import numpy as np
import pytest
import torch
from helpers.planted import write_store
from sae_lens import SAE, AbsTopKSAE, AbsTopKSAEConfig, StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler

from medsae_plugin.training.normalization import CenterAndScale, save_of_raw, split_by_sign

D = 6


def training_sae(seed: int = 0, to_input: bool = False) -> StandardTrainingSAE:
    config = StandardTrainingSAEConfig(d_in=D, d_sae=9, apply_b_dec_to_input=to_input, metadata=SAEMetadata())
    sae, generator = StandardTrainingSAE(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return sae


def test_it_is_of_the_training_rows_and_gives_each_dimension_a_mean_square_of_one(tmp_path):
    rows = (np.random.default_rng(0).normal(size=(120, D)) * 3 + 100 * np.arange(D)).astype(np.float32)
    store = write_store(tmp_path / "store", {"h": rows})
    train = rows[(store.images["split"] == "train").to_numpy()].astype(np.float64)
    found = CenterAndScale.of(store, "h")
    np.testing.assert_allclose(found.mean, train.mean(0), rtol=1e-6)
    z = found(torch.from_numpy(train))
    np.testing.assert_allclose(z, (train - train.mean(0)) * found.scale, atol=1e-4)
    assert z.square().sum(1).mean() == pytest.approx(D, rel=1e-5)


@pytest.mark.parametrize("to_input", [False, True])
def test_what_is_saved_takes_raw_rows_and_the_one_in_training_stays(tmp_path, to_input):
    center = CenterAndScale(torch.arange(D, dtype=torch.float64) * 7 - 3, 0.3)
    sae = training_sae(to_input=to_input).eval()
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    x = torch.randn(50, D, generator=torch.Generator().manual_seed(1)) * 4 + 5
    latents = sae.encode(center(x))
    expected = sae.decode(latents) / center.scale + center.mean.float()
    save_of_raw(sae, center, ActivationScaler(), tmp_path / "sae")
    raw = SAE.load_from_disk(tmp_path / "sae")
    torch.testing.assert_close(raw.encode(x), latents, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(raw(x), expected, atol=2e-3, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())


def test_sae_lens_own_scale_is_folded_too_and_without_either_nothing_is(tmp_path):
    sae = training_sae().eval()
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(2))
    save_of_raw(sae, None, ActivationScaler(scaling_factor=0.5), tmp_path / "scaled")
    scaled = SAE.load_from_disk(tmp_path / "scaled")
    torch.testing.assert_close(scaled.encode(x), sae.encode(x * 0.5), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scaled(x), sae.decode(sae.encode(x * 0.5)) / 0.5, atol=1e-4, rtol=1e-4)
    save_of_raw(sae, None, ActivationScaler(), tmp_path / "plain")
    torch.testing.assert_close(SAE.load_from_disk(tmp_path / "plain")(x), sae.decode(sae.encode(x)))


def test_signed_latents_become_two_that_reconstruct_the_same():
    sae, generator = AbsTopKSAE(AbsTopKSAEConfig(d_in=D, d_sae=7, k=3)), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(40, D, generator=generator)
    both = split_by_sign(sae)
    signed, latents = sae.encode(x), both.encode(x)
    assert both.cfg.d_sae == 14 and both.cfg.k == 3 and (latents >= 0).all()
    torch.testing.assert_close(latents[:, :7] - latents[:, 7:], signed)
    assert ((latents[:, :7] > 0) & (latents[:, 7:] > 0)).sum() == 0 and (signed < 0).any()
    torch.testing.assert_close(both(x), sae(x))
