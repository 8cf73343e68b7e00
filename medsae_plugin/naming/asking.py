"""Questions to a model: asked once, read strictly, asked again with what was wrong, else recorded as unanswered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.answers import Answers, Kept, key_of, request_of
from medsae_plugin.naming.chat import Chat, Conversation, Failure, Turn
from medsae_plugin.naming.prompts import load_prompt
from medsae_plugin.naming.schema import Answer, Unparsable, read

ATTEMPTS = 3
# So many failures one after another, with no answer between them, are not bad luck.
_FAILURES_IN_A_ROW = 10
UNUSABLE_IN_A_ROW = 5
"""So many questions in a row without a usable answer, in `ATTEMPTS` attempts each, are the model's way."""
_QUOTED = 2000  # characters of an unusable answer that the model is shown again
_EXCERPT = 160  # and that the user is shown


@dataclass(frozen=True)
class Question:
    """A question: `build` makes the conversation when it is needed, so that pictures are not all in memory at once.

    prompt: the prompt's identity, kept with the answer.
    check: what is wrong with an answer that fits the schema, in words for the model; "" where nothing is.
    """

    build: Callable[[], Conversation]
    schema: type[Answer]
    prompt: str
    check: Callable[[Any], str] = lambda answer: ""


@dataclass(frozen=True)
class Reply:
    """An answer, or why there is none. `failed`: none came, so a later run asks again.

    aside: fields of the answer that were not asked for, and are not used.
    """

    answer: Answer | None
    problem: str = ""
    failed: bool = False
    aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Answered:
    """The questions that shared a request, its record, and whether it was sent now rather than found."""

    questions: list[int]
    record: Kept
    sent: bool


class Asker:
    """Asks a model, and keeps what it says.

    `sent` and `reused` count requests made and answers that were there, `aside` answers by the fields in them that were
    not asked for.
    """

    def __init__(self, chat: Chat, answers: Answers, *, progress: bool = True) -> None:
        self.chat, self.answers, self.progress = chat, answers, progress
        self.sent = self.reused = 0
        self.aside: Counter[str] = Counter()
        self._failures = 0

    def ask(self, questions: Sequence[Question], what: str = "questions") -> list[Reply]:
        """A reply to each question, in order.

        An answer that cannot be read is asked for again with the reason, `ATTEMPTS` times in all.

        Raises:
            MedSAEError: the model cannot be used, fails again and again, or gives no usable answer to
                `UNUSABLE_IN_A_ROW` questions in a row; what was answered is kept.
        """
        replies: list[Reply] = [Reply(None)] * len(questions)
        turns: list[tuple[Turn, ...]] = [()] * len(questions)
        todo = dict.fromkeys(range(len(questions)))
        with tqdm(total=len(questions), desc=what, disable=not self.progress, leave=False) as bar:
            while todo:
                # A run of unusable answers ends the first wave, so that it is seen whether asking again helps before
                # more is asked; what is left waits in `todo`.
                wave, row = todo, list[_Answered]()
                for attempt in range(ATTEMPTS):
                    again: list[int] = []
                    for answered in self._wave(questions, turns, wave, row):
                        for i in answered.questions:
                            replies[i] = reply = _read(answered.record, questions[i])
                            said = answered.record.answer
                            if reply.answer is None and said is not None and attempt < ATTEMPTS - 1:
                                turns[i] = (*turns[i], *_once_more(said, reply.problem))
                                again.append(i)
                            else:
                                bar.update()
                        if attempt == 0 and answered.sent:
                            _note(row, answered, replies)
                    wave = dict.fromkeys(sorted(again))
                if len(row) >= UNUSABLE_IN_A_ROW and not any(replies[i].answer for a in row for i in a.questions):
                    raise _wrong_form(row, questions)
        self.aside.update(field for reply in replies for field in set(reply.aside))
        return replies

    def _wave(
        self,
        questions: Sequence[Question],
        turns: Sequence[tuple[Turn, ...]],
        wave: dict[int, None],
        row: Sequence[_Answered],
    ) -> Iterator[_Answered]:
        """Ask the questions of a wave, taking each out of it, until `row` is so long that it tells; yields answers."""
        kept: list[_Answered] = []
        requests: list[dict[str, Any]] = []
        waiting: dict[str, list[int]] = {}  # questions that share a request share its answer
        # In a later wave `row` may be long already: it ends the wave in which it grew.
        before = len(row)

        def needed() -> Iterator[Conversation]:
            while wave and (before or len(row) < UNUSABLE_IN_A_ROW):
                i = next(iter(wave))
                del wave[i]
                conversation = (*questions[i].build(), *turns[i])
                request = request_of(self.chat.identity, questions[i].prompt, conversation)
                key = key_of(request)
                if key in waiting:
                    waiting[key].append(i)
                elif (record := self.answers.get(request)) is not None:
                    self.reused += 1
                    kept.append(_Answered([i], record, sent=False))
                else:
                    waiting[key] = [i]
                    requests.append(request)
                    self.sent += 1
                    yield conversation

        for place, reply in self.chat.replies(needed()):
            record = self._keep(requests[place], reply)
            # Taken out before any later question can join, whose answer is on disk from now on.
            yield _Answered(waiting.pop(key_of(requests[place])), record, sent=True)
        yield from kept

    def _keep(self, request: dict[str, Any], reply: str | Failure) -> Kept:
        if isinstance(reply, str):
            self._failures = 0
            return self.answers.put(request, reply)
        if reply.lasting:
            return self.answers.put(request, None, reply.reason)
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            raise MedSAEError(
                f"{self._failures} requests failed one after another, the last with: {reply.reason}. What was answered "
                "is kept; run the same command again to go on"
            )
        return Kept(None, reply.reason, failed=True)


def told(askers: Sequence[Asker]) -> list[str]:
    """What was asked, in lines; none where nobody asks."""
    if not askers:
        return []
    lines = [f"{sum(a.sent for a in askers)} requests sent, {sum(a.reused for a in askers)} answers were there"]
    if aside := sum((a.aside for a in askers), Counter[str]()):
        fields = ", ".join(f"{field[:40]!r} in {n}" for field, n in aside.most_common(5))
        lines.append(f"fields of answers that were not asked for, and are not used: {fields}")
    return lines


def _note(row: list[_Answered], answered: _Answered, replies: Sequence[Reply]) -> None:
    """Lengthen a run of unusable answers, or end it; a request that failed does neither."""
    first = replies[answered.questions[0]]
    if first.answer is not None:
        row.clear()
    elif not first.failed:
        row.append(answered)


def _wrong_form(row: Sequence[_Answered], questions: Sequence[Question]) -> MedSAEError:
    last = row[-1]
    said, problem = last.record.answer, _read(last.record, questions[last.questions[0]]).problem
    # `repr` escapes whatever a terminal might obey.
    excerpt = "" if said is None else f", in {said[:_EXCERPT]!r}{'...' if len(said) > _EXCERPT else ''}"
    return MedSAEError(
        f"{len(row)} questions in a row got no answer that can be used, so no more are asked. The last: "
        f"{problem}{excerpt}. What was answered is kept. Ask a model that sees images and answers in JSON as it is "
        "told, or mend how it is served"
    )


def _read(record: Kept, question: Question) -> Reply:
    if record.answer is None:
        return Reply(None, f"no answer came: {record.refusal}", failed=record.failed)
    try:
        answer, aside = read(record.answer, question.schema)
    except Unparsable as error:
        return Reply(None, str(error))
    problem = question.check(answer)
    return Reply(None, problem) if problem else Reply(answer, aside=aside)


def _once_more(text: str, problem: str) -> tuple[Turn, Turn]:
    return Turn("assistant", (text[:_QUOTED].strip() or "(nothing)",)), load_prompt("again").turn({}, problem=problem)
