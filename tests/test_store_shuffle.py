"""The shuffled order of a stream of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae_plugin.store import shuffle
from medsae_plugin.store.shuffle import ShuffledRows


@pytest.fixture(autouse=True, scope="module")
def _small_windows():
    # So that a few hundred rows make several windows, the last one short.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "BLOCK", 4)
        patch.setattr(shuffle, "BLOCKS_PER_WINDOW", 5)
        yield


@settings(deadline=None)
@given(n=st.integers(1, 300), seed=st.integers(0, 2**40))
def test_each_epoch_visits_each_row_once(n, seed):
    stream = ShuffledRows(n, seed).take(0, 3 * n)
    for epoch in stream.reshape(3, n):
        assert sorted(epoch) == list(range(n))


@settings(deadline=None)
@given(n=st.integers(1, 300), start=st.integers(0, 2000), count=st.integers(1, 400), piece=st.integers(1, 50))
def test_any_place_is_found_without_the_ones_before(n, start, count, piece):
    whole = ShuffledRows(n, 7).take(0, start + count)
    np.testing.assert_array_equal(ShuffledRows(n, 7).take(start, count), whole[start:])
    rows = ShuffledRows(n, 7)
    pieces = [rows.take(place, min(piece, start + count - place)) for place in range(0, start + count, piece)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_one_may_go_back():
    rows = ShuffledRows(120, 7)
    whole = rows.take(0, 360)
    for place in (300, 60, 130, 0, 119):  # into other epochs, and other windows of one
        np.testing.assert_array_equal(rows.take(place, 20), whole[place : place + 20])


def test_orders_differ_by_epoch_and_seed():
    first, second = ShuffledRows(200, 0).take(0, 400).reshape(2, 200)
    assert (first != second).mean() > 0.9
    assert (first != ShuffledRows(200, 1).take(0, 200)).mean() > 0.9
    assert abs(np.corrcoef(first, np.arange(200))[0, 1]) < 0.3


def test_each_epoch_has_other_windows_and_other_orders_within_them():
    def first_windows(seed=0):
        return ShuffledRows(400, seed).take(0, 2000).reshape(5, 400)[:, :20]

    assert len({frozenset(window) for window in first_windows().tolist()}) == 5, "other blocks come first"
    one_block = ShuffledRows(4, 0).take(0, 80).reshape(20, 4)
    assert len({tuple(order) for order in one_block.tolist()}) > 5, "the order within is another, too"
    ranks = np.argsort(np.argsort(ShuffledRows(400, 0).take(0, 400).reshape(20, 20), axis=1), axis=1)
    assert len({tuple(order) for order in ranks.tolist()}) == 20, "of each window"


def test_first_row_is_uniform():
    counts = np.bincount([ShuffledRows(22, seed).take(0, 1)[0] for seed in range(4400)], minlength=22)
    # 22 rows in 6 blocks, one of them short: 200 expected of each; chi-square of 21 degrees beyond 49 has p < 0.0005
    assert ((counts - 200.0) ** 2 / 200).sum() < 49


def test_windows_draw_from_all_over():
    rows = ShuffledRows(4000, 0).take(0, 20)
    assert rows.max() - rows.min() > 2000
