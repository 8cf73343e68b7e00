"""Units: labels and indices, which store or encoder they fit, and SAEs however they are given."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.planted import identity_sae, relu_sae, save_sae, write_store
from hypothesis import given
from hypothesis import strategies as st

from medsae_plugin.encoders import HookedVisionEncoder
from medsae_plugin.errors import MedSAEError
from medsae_plugin.scores import Units, open_units
from medsae_plugin.scores.opening import open_latents
from medsae_plugin.scores.units import Latents, Neurons, described

HOOK, D = "hook_embedding", 5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = np.random.default_rng(0).normal(size=(30, D)).astype(np.float32)
    return write_store(tmp_path_factory.mktemp("planted") / "store", {HOOK: rows})


@pytest.fixture(scope="module")
def phantom_encoder():
    return HookedVisionEncoder.from_pretrained("phantom-swin")


@given(st.integers(1, 9), st.data())
def test_a_label_says_which_unit_it_is_and_back(d, data):
    neurons = Neurons.of(HOOK, d)
    latents = Units("s", "sae", HOOK, d, 3 * d)
    j = data.draw(st.integers(0, d - 1))
    assert neurons.label(j) == j and neurons.label(j + d) == f"-{j}"
    for units in (neurons, latents):
        labels = [units.label(k) for k in range(units.n)]
        assert len(set(map(str, labels))) == units.n
        assert [units.index(label) for label in labels] == [units.index(str(label)) for label in labels]
        assert [units.index(label) for label in labels] == list(range(units.n))
        assert units.label(-1) is None and units.index(None) == -1


def test_the_negative_of_the_first_neuron_is_not_the_neuron():
    assert Neurons.of(HOOK, D).index("-0") == D and Neurons.of(HOOK, D).index("0") == 0


@pytest.mark.parametrize("label", [D, "-5", "--1", "", "1.0", "x", "²", "-"])
def test_a_label_of_no_neuron_is_refused(label):
    with pytest.raises(MedSAEError, match=rf"neurons of {HOOK} has units 0 to -4, and no"):
        Neurons.of(HOOK, D).index(label)


@pytest.mark.parametrize("label", [7, -1, "-0", "-1"])
def test_a_label_of_no_latent_is_refused(label):
    with pytest.raises(MedSAEError, match="s has units 0 to 6, and no"):
        Units("s", "sae", HOOK, D, 7).index(label)


def test_what_units_compute_is_plain_arithmetic(store):
    rows = next(store.image_batches(HOOK, batch_images=30))[1]
    neurons, latents = Neurons.of(HOOK, D), Latents.of(identity_sae(D), "s")
    torch.testing.assert_close(neurons.encode(rows), torch.cat([rows, -rows], 1))
    torch.testing.assert_close(latents.encode(rows), torch.cat([rows, -rows], 1).clamp(min=0))
    signed = torch.cat([torch.eye(D), -torch.eye(D)])
    assert (neurons.directions() == signed).all() and (latents.directions() == signed).all()
    known = described(latents)
    assert known.n == 2 * D and known.sae_sha256 == latents.sae_sha256 and known.config is None
    with pytest.raises(MedSAEError, match="known by its sums alone"):
        known.encode(rows)
    with pytest.raises(MedSAEError, match="known by its sums alone"):
        known.directions()
    assert type(described(neurons)) is Neurons


def test_units_fit_the_hook_width_and_weights_that_they_were_made_for(store, phantom_encoder):
    weights = phantom_encoder.weights_sha256

    def latents(d, hook=HOOK, **metadata):
        return Latents.of(relu_sae(hook, torch.eye(d), **metadata), "s")

    assert latents(D, encoder_sha256="0" * 64).fits(store) and Neurons.of(HOOK, D).fits(store)
    d = phantom_encoder.hook_specs[HOOK].d
    assert latents(d, encoder_sha256=weights).fits(phantom_encoder) and Neurons.of(HOOK, d).fits(phantom_encoder)
    for units, place, wrong in [
        (latents(D, "hook_nowhere"), store, "s stands at hook 'hook_nowhere', which .* does not have"),
        (latents(d, "hook_nowhere"), phantom_encoder, "s stands at hook 'hook_nowhere', which .* does not have"),
        (latents(D + 1), store, f"s takes {D + 1} dimensions; .* has {D} at {HOOK}"),
        (latents(d + 1), phantom_encoder, f"s takes {d + 1} dimensions; .* has {d} at {HOOK}"),
        (Neurons.of(HOOK, D + 1), store, f"neurons of {HOOK} takes {D + 1} dimensions"),
        (latents(D, encoder_sha256="f" * 64), store, r"s was trained on encoder weights ffffffffffff\.\.\., those of"),
        (latents(d, encoder_sha256="f" * 64), phantom_encoder, r"weights ffffffffffff\.\.\., those of phantom-swin"),
        (latents(D, model_name="medclip-vit"), store, "s is an SAE of the encoder medclip-vit, and this is planted"),
    ]:
        assert not units.fits(place)
        with pytest.raises(MedSAEError, match=wrong):
            units.check_fits(place)
    with pytest.warns(UserWarning, match="s is taken for an SAE of this planted, unchecked: it does not say"):
        latents(D).check_fits(store)


def test_units_fit_images_that_were_prepared_as_theirs_were(phantom_encoder):
    """MedSAE's code stretches what MedCLIP pads: one encoder's weights, and other activations."""
    d, weights = phantom_encoder.hook_specs[HOOK].d, phantom_encoder.weights_sha256

    def latents(**preprocessing):
        said = {"encoder_sha256": weights, **({"preprocessing": preprocessing} if preprocessing else {})}
        return Latents.of(relu_sae(HOOK, torch.eye(d), **said), "s")

    own = phantom_encoder.preprocessor.config
    assert latents().fits(phantom_encoder) and latents(**json.loads(json.dumps(own))).fits(phantom_encoder)
    with pytest.raises(MedSAEError, match=r"s was trained on images that were prepared otherwise than those of encoder "
                                          r"phantom-swin \(fit 'stretch', here 'pad'\)"):  # fmt: skip
        latents(**{**own, "fit": "stretch"}).check_fits(phantom_encoder)
    with pytest.warns(UserWarning, match="prepared otherwise .*; its latents may mean nothing here"):
        latents(**{**own, "resize": 128}).check_fits(phantom_encoder, strict=False)


def test_saes_are_given_as_paths_objects_or_by_name(store, tmp_path):
    sae = identity_sae(D)
    sae.cfg.metadata.encoder_sha256 = "0" * 64
    one, other = save_sae(tmp_path / "a" / "x", sae), save_sae(tmp_path / "b" / "x", sae)
    assert list(open_latents(one)) == list(open_latents([str(one)])) == ["x"]
    assert list(open_latents([one, other])) == ["a/x", "b/x"]
    assert list(open_latents({"mine": sae, "theirs": other})) == ["mine", "theirs"]
    assert open_latents(sae)["SAE 1"] == (Latents.of(sae, "SAE 1"), None)
    assert open_latents(one)["x"][1] == one
    opened = open_latents({"theirs": other})
    shutil.rmtree(other)
    assert open_units(store, opened)[0] is opened["theirs"][0], "what is open is not opened again"
    units = open_units(store, {"mine": sae, "theirs": opened["theirs"]})
    assert [(u.name, u.kind, u.baseline_of) for u in units] == [
        ("mine", "sae", None),
        ("untrained mine", "untrained", "mine"),
        ("theirs", "sae", None),
        ("untrained theirs", "untrained", "theirs"),
        (f"neurons of {HOOK}", "neurons", None),
    ]
    sae.cfg.metadata.name = "named"
    assert list(open_latents(sae)) == ["named"]
    for saes, wrong in [
        ([], "there is no SAE"),
        ([one, one], "the same SAE is given twice"),
        ([sae, sae], "two SAEs are named named"),
        (tmp_path, "holds no SAE"),
    ]:
        with pytest.raises(MedSAEError, match=wrong):
            open_latents(saes)
