"""Images on which a name is tried, and a judge's answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.asking import Asker, Question
from medsae_plugin.naming.chat import Conversation
from medsae_plugin.naming.evidence import one_a_patient
from medsae_plugin.naming.firing import Firing
from medsae_plugin.naming.heatmaps import picture
from medsae_plugin.naming.namers import quoted
from medsae_plugin.naming.prompts import Prompt, load_prompt
from medsae_plugin.naming.schema import Fits, Fitting, LatentName

FIRING_QUANTILE = 0.3
"""q: a unit fires where it reaches the (1 - q) quantile of its positive activations, as in detection."""

FEWEST = 2
"""Images of a kind below which a name is not tried."""


@dataclass(frozen=True)
class Trial:
    """Rows of the matrix in the order in which they are shown, and whether the unit fires on each: half and half."""

    rows: tuple[int, ...]
    truth: Int[np.ndarray, " images"]


@runtime_checkable
class TrialRule(Protocol):
    """A way to choose the images on which a name is tried, and to take the answers.

    held_out: whether none of a patient that names were made from may be among them. unread_is_no: whether an answer
    that cannot be read is taken for "does not fit", or left out.
    """

    @property
    def name(self) -> str: ...
    @property
    def each(self) -> int: ...
    @property
    def held_out(self) -> bool: ...
    @property
    def unread_is_no(self) -> bool: ...

    def sample(
        self,
        column: Float[np.ndarray, " images"],
        rows: Int[np.ndarray, " images"],
        patients: Int[np.ndarray, " images"],
        seed: int | list[int],
    ) -> Trial | None: ...


@dataclass(frozen=True)
class Trials:
    """As many firing as silent images, up to `each`, all of different patients."""

    each: int = 10
    held_out: ClassVar[bool] = True
    unread_is_no: ClassVar[bool] = False
    name: ClassVar[str] = "held-out"

    def __post_init__(self) -> None:
        if self.each < 1:
            raise MedSAEError("a name is tried on 1 image of a kind or more")

    def sample(
        self,
        column: Float[np.ndarray, " images"],
        rows: Int[np.ndarray, " images"],
        patients: Int[np.ndarray, " images"],
        seed: int | list[int],
    ) -> Trial | None:
        """Images to try a name on; None where there are under `FEWEST` of a kind.

        Firing images reach the (1 - q) quantile of the column's positive activations; silent ones are at 0 or below.

        Args:
            column: the unit's activations on the images `rows`, whose patients are `patients`.
        """
        positive = column[column > 0]
        if len(positive) == 0:
            return None
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(column))
        strong = order[column[order] >= np.quantile(positive, 1 - FIRING_QUANTILE)]
        firing = one_a_patient(strong, patients, patients[:0])[: self.each]
        silent = one_a_patient(order[column[order] <= 0], patients, patients[firing])[: self.each]
        n = min(len(firing), len(silent))
        if n < FEWEST:
            return None
        places = np.concatenate([firing[:n], silent[:n]])
        shown = rng.permutation(2 * n)
        truth = np.repeat([1, 0], n)
        return Trial(tuple(int(rows[place]) for place in places[shown]), truth[shown])


class Judge:
    """A vision-language model that is shown images, as they are, and says which fit a name.

    group: images in one question. One at a time is the stricter reading; groups cost fewer requests.
    """

    def __init__(self, asker: Asker, group: int = 1) -> None:
        if group < 1:
            raise MedSAEError("a group holds 1 image or more")
        self.asker, self.group = asker, group

    @property
    def identity(self) -> dict[str, object]:
        return {**self.asker.chat.identity, "group": self.group, "prompt": self._prompt.identity}

    @property
    def _prompt(self) -> Prompt:
        return load_prompt("judge_one" if self.group == 1 else "judge_group")

    def answers(self, firing: Firing, claims: Sequence[tuple[LatentName, Trial]]) -> list[Float[np.ndarray, " images"]]:
        """For each name and trial, an answer an image: 1 fits, 0 does not, nan unanswered."""
        places = [
            (k, list(range(first, min(first + self.group, len(trial.rows)))))
            for k, (_, trial) in enumerate(claims)
            for first in range(0, len(trial.rows), self.group)
        ]
        # Names in turn, so that one that a model will not speak of is no run of unusable answers.
        places.sort(key=lambda place: place[1][0])
        questions = [self._question(firing, claims[k][0], [claims[k][1].rows[i] for i in shown]) for k, shown in places]
        answers = [np.full(len(trial.rows), np.nan) for _, trial in claims]
        replies = self.asker.ask(questions, "judging")
        for (k, shown), reply in zip(places, replies, strict=True):
            if isinstance(reply.answer, Fits):
                answers[k][shown] = float(reply.answer.fits)
            elif isinstance(reply.answer, Fitting):
                answers[k][shown] = [float(i + 1 in reply.answer.fitting) for i in range(len(shown))]
        return answers

    def _question(self, firing: Firing, name: LatentName, rows: list[int]) -> Question:
        prompt, count = self._prompt, len(rows)

        def build() -> Conversation:
            preprocessing = firing.store.preprocessing
            pictures = [picture(firing.images.path(row), preprocessing) for row in rows]
            captions = ["The image:"] if self.group == 1 else [f"Image {i + 1}:" for i in range(count)]
            words = {"name": quoted(name)} | ({} if self.group == 1 else {"count": count})
            return (prompt.turn({"asked": list(zip(captions, pictures, strict=True))}, **words),)

        if self.group == 1:
            return Question(build, Fits, prompt.identity)
        return Question(build, Fitting, prompt.identity, partial(_beyond, count))


def _beyond(count: int, answer: Fitting) -> str:
    wrong = [number for number in answer.fitting if number > count]
    return f"there is no image {wrong[0]}; the images are numbered from 1 to {count}" if wrong else ""
