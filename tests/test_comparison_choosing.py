"""Choosing among recipes by four figures: fronts and ranks by brute force, survivors by hand, reasons in words."""

import math

import numpy as np
import pytest

from medsae_plugin.comparison.choosing import CRITERIA, Candidate, going_on, mean_figures, ordered, reason


def figures(explained, l0, dead, r):
    return {"explained_variance": explained, "l0": None if l0 is None else float(l0), "dead": dead, "mean_top_r": r}


def worth(candidate):
    """Each criterion as a number of which more is better."""
    values = [candidate.figures[name] for name in CRITERIA]
    signs = [1, -1, -1, 1]
    return [-math.inf if v is None else s * v for v, s in zip(values, signs, strict=True)]


def brute_force_fronts(candidates):
    left, front, fronts = dict(enumerate(map(worth, candidates))), 1, {}
    while left:
        best = [
            k
            for k, mine in left.items()
            if not any(
                all(t >= m for t, m in zip(theirs, mine, strict=True))
                and any(t > m for t, m in zip(theirs, mine, strict=True))
                for theirs in left.values()
            )
        ]
        for k in best:
            fronts[k] = front
            del left[k]
        front += 1
    return fronts


@pytest.mark.parametrize("seed", range(8))
def test_fronts_and_mean_ranks_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(1, 5, (14, 4)) / 10  # few values: many ties
    drawn[rng.random(drawn.shape) < 0.1] = np.nan
    drawn[:, 0] = rng.integers(1, 5, 14) / 10  # an explained variance, so that all are sound
    candidates = [
        Candidate(f"c{k}", figures(*(None if np.isnan(x) else float(x) for x in row))) for k, row in enumerate(drawn)
    ]
    fronts = brute_force_fronts(candidates)
    assert max(fronts.values()) > 2
    worths = np.array([worth(c) for c in candidates])
    beaten = (worths[None] > worths[:, None]).sum(1)
    tied = (worths[None] == worths[:, None]).sum(1)
    ranks = (beaten + (tied + 1) / 2).mean(1)
    order = ordered(candidates)
    assert {p.candidate.name: p.front for p in order} == {f"c{k}": front for k, front in fronts.items()}
    for p in order:
        assert p.mean_rank == pytest.approx(ranks[int(p.candidate.name[1:])])
    wanted = sorted(range(14), key=lambda k: (fronts[k], round(ranks[k], 9), k))
    assert [p.candidate.name for p in order] == [f"c{k}" for k in wanted]


A = Candidate("a", figures(0.9, 32, 0.1, 0.30))
B = Candidate("b", figures(0.8, 16, 0.0, 0.40))  # beats d
C = Candidate("c", figures(0.5, 4, 0.5, 0.10))
D = Candidate("d", figures(0.7, 16, 0.2, 0.40))
DENSE = Candidate("dense", figures(0.99, 200, 0.0, 0.5), is_sparse=False)
EMPTY = Candidate("empty", figures(-0.1, 0.0, 1.0, 0.0))


def test_who_goes_on_by_hand():
    """Ranks of a, b, c, d by explained variance 1 2 4 3, L0 4 2.5 1 2.5, dead 2 1 4 3, r 3 1.5 4 1.5: means 2.5, 1.75,
    3.25 and 2.5; d is behind b's front, though its mean rank is as good as a's and better than c's."""
    order = ordered([A, B, C, D])
    assert [(p.candidate.name, p.front, p.mean_rank) for p in order] == [
        ("b", 1, 1.75),
        ("a", 1, 2.5),
        ("c", 1, 3.25),
        ("d", 2, 2.5),
    ]
    assert going_on([D, C, B, A], 0.5, of=4) == ["b", "a"]  # in the order given
    assert going_on([A, B, C, D], 0.5, of=4) == ["a", "b"]
    assert going_on([A, B, C, D], 0.3, of=4) == ["a", "b"]  # 1.2, rounded up
    assert going_on([A, B, C, D], 0.5, of=7) == ["a", "b", "c", "d"]  # three more diverged
    assert going_on([C, D], 0.1, of=2) == ["d"]  # one at least; c is on the front as well


def test_what_is_not_sparse_or_explains_nothing_is_behind_all_others():
    assert [p.candidate.name for p in ordered([DENSE, EMPTY, A, C])] == ["a", "c", "dense", "empty"]
    assert going_on([DENSE, EMPTY, A, C], 0.5, of=4) == ["a", "c"]
    told = reason([DENSE, EMPTY], "val")
    assert "none is to be recommended" in told


def test_the_reason_says_what_it_was_chosen_by_and_what_comes_next():
    told = reason([A, B, C, D], "val")
    assert told == (
        "3 of 4 are on the front of explained variance, L0, dead share and mean top r on val (none is as good in all "
        "four and better in one); its mean rank over the four is 1.75: explained variance 0.800 (place 2), L0 16.0 "
        "(place 2), dead 0.0% (best), mean top r 0.400 (best). Next: a (mean rank 2.50), better in explained variance "
        "0.900."
    )
    assert reason([B], "val").startswith("The only one that was trained to the end; on val: explained variance 0.800")
    assert reason([B, D], "val").startswith("It alone of 2 is on the front")
    none = Candidate("none", figures(0.8, 16, 0.0, None))
    assert "mean top r undefined (best)" in reason([none, Candidate("x", figures(0.7, 17, 0.1, None))], "val")


def test_figures_of_seeds_are_their_means_and_undefined_where_one_is():
    assert mean_figures([figures(0.5, 4, 0.0, None), figures(0.7, 6, 0.5, 0.2)]) == figures(0.6, 5, 0.25, None)
