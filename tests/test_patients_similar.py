"""Nearest patients by latents: exact by brute force, never the same patient, precision as counted by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.metrics.pairwise import cosine_similarity

from medsae_plugin import MedSAEError
from medsae_plugin.patients.similar import LatentIndex, blocks, precision_at

N, LATENTS = 90, 40


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    a = rng.random((N, LATENTS)) * (rng.random((N, LATENTS)) < rng.uniform(0.02, 0.4, LATENTS))
    images = pd.DataFrame({"path": [f"{i}.png" for i in range(N)], "patient": [f"p{i // 3}" for i in range(N)]})
    return a, images


def brute(a, weights, query, images, not_of, k):
    weighed, asked = a * weights, query * weights
    norms = np.linalg.norm(weighed, axis=1)
    cosine = np.divide(weighed @ asked, norms * np.linalg.norm(asked), out=np.zeros(len(a)), where=norms > 0)
    best = {}
    for i in range(len(a)):
        patient = images["patient"][i]
        if patient != not_of and cosine[i] > best.get(patient, (0.0, -1))[0]:
            best[patient] = (cosine[i], i)
    return sorted(best.values(), reverse=True)[:k]


@pytest.mark.parametrize("weighting", ["idf", "none"])
def test_the_nearest_are_those_of_brute_force_one_a_patient(made, weighting):
    a, images = made
    index = LatentIndex(sparse.csr_array(a), images, weighting)
    weights = np.log(N / np.maximum((a > 0).sum(0), 1)) if weighting == "idf" else np.ones(LATENTS)
    np.testing.assert_allclose(index.weights, weights)
    for row in (0, 17, 88):
        mine = images["patient"][row]
        found = index.nearest(a[row], 6, not_of=mine)
        expected = brute(a, weights, a[row], images, mine, 6)
        assert [one.row for one in found] == [i for _, i in expected]
        assert [one.cosine for one in found] == pytest.approx([c for c, _ in expected])
        assert mine not in {one.patient for one in found} and len({one.patient for one in found}) == 6
        for one in found:
            assert sum(part for _, part in one.shared) <= one.cosine + 1e-12
            assert all(a[row, j] > 0 and a[one.row, j] > 0 for j, _ in one.shared)
    np.testing.assert_allclose(
        index.cosines(np.array([3, 40])), cosine_similarity(a[[3, 40]] * weights, a * weights), atol=1e-12
    )


def test_weights_are_scikit_learns_but_for_its_added_one(made):
    a, images = made
    theirs = TfidfTransformer(smooth_idf=False).fit(a).idf_
    fires = (a > 0).sum(0) > 0
    np.testing.assert_allclose(LatentIndex(sparse.csr_array(a), images).weights[fires], theirs[fires] - 1)


def test_a_silent_image_has_no_neighbour_and_the_k_may_be_fewer(made):
    a, images = made
    index = LatentIndex(sparse.csr_array(a), images)
    assert index.nearest(np.zeros(LATENTS)) == []
    only = np.zeros((3, LATENTS))
    only[0, 0] = only[1, 0] = only[2, 1] = 1
    few = LatentIndex(sparse.csr_array(only), pd.DataFrame({"path": list("abc"), "patient": list("xyz")}), "none")
    assert [one.path for one in few.nearest(only[0], 5, not_of="x")] == ["b"]
    with pytest.raises(MedSAEError, match="3 rows of activations are not of 2 images"):
        LatentIndex(sparse.csr_array(only), images[:2])


def test_precision_is_counted_over_patients_and_chance_beside():
    """Four patients; a has two images. The nearest of each is by a made cosine."""
    patients = np.array(["a", "a", "b", "c", "d"])
    labels = np.array([[1, 0], [1, 1], [1, 1], [0, np.nan], [0, 1]], dtype=float)
    cosine = np.array([[1, 1, 0.2, 0.9, 0.5], [1, 1, 0.8, 0.1, 0.9], [0.3, 0.7, 1, 0.6, 0.1]])
    found, chance = precision_at([(np.array([0]), cosine[:1]), (np.array([1, 2]), cosine[1:])], labels, patients, 2)
    nan = np.nan
    # 0 (finding one): nearest c, d have it not. 1: d, b: one of two; both have the second. 2: a's second image, c: one of
    # two have the first, and of c the second is not known.
    np.testing.assert_array_equal(found, [[0, nan], [0.5, 1], [0.5, 1]])
    # others of a: b, c, d. Of b: a's two images count half each, c, d.
    np.testing.assert_allclose(chance, [[1 / 3, nan], [1 / 3, 1], [1 / 3, (0.5 + 1) / 2]])
    assert [len(b) for b in blocks(np.arange(600))] == [200, 200, 200]
