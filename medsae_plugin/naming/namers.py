"""Ways to name a unit: a vision-language model, the encoder's own text tower over a vocabulary, the best label."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch.nn.functional import normalize

from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.asking import Asker, Question
from medsae_plugin.naming.chat import Conversation
from medsae_plugin.naming.evidence import CHANCE, Sample
from medsae_plugin.naming.exhibits import Exhibits
from medsae_plugin.naming.firing import Firing
from medsae_plugin.naming.heatmaps import Style
from medsae_plugin.naming.prompts import load_prompt
from medsae_plugin.naming.schema import LatentName
from medsae_plugin.naming.vocabulary import Vocabulary
from medsae_plugin.scores.images import EMBEDDINGS

if TYPE_CHECKING:
    from medsae_plugin.encoders import HookedVisionEncoder


@dataclass(frozen=True)
class Proposal:
    """A name, or why there is none. `similarity`: the cosine or the r that the name was chosen by, where it was."""

    name: LatentName | None
    problem: str = ""
    similarity: float | None = None


@runtime_checkable
class Namer(Protocol):
    """Proposes names from evidence."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a name depends on besides the evidence: the backend, its model and its parameters. No path."""

    def propose(
        self, firing: Firing, units: Sequence[int], samples: Sequence[Sample], rows: np.ndarray
    ) -> list[Proposal]:
        """A proposal for each unit, from its sample of the matrix rows `rows` (a sample counts places in `rows`)."""


class ChatNamer:
    """A vision-language model shown each unit's evidence, with report sentences where there are reports.

    style: how heatmaps are shown at hooks with positions: `overlay`, `crop` or `none`.
    """

    def __init__(self, asker: Asker, style: Style = "overlay") -> None:
        self.asker, self.style = asker, style

    @property
    def identity(self) -> Mapping[str, Any]:
        prompts = [load_prompt(name).identity for name in ("name", "name_with_reports")]
        return {"backend": "chat", **self.asker.chat.identity, "prompts": prompts, "heatmaps": self.style}

    def propose(
        self, firing: Firing, units: Sequence[int], samples: Sequence[Sample], rows: np.ndarray
    ) -> list[Proposal]:
        with_reports = firing.images.reports is not None
        prompt = load_prompt("name_with_reports" if with_reports else "name")

        def build(unit: int, sample: Sample) -> Conversation:
            exhibits = Exhibits(firing, unit, rows, self.style)
            words = {"heatmap": exhibits.heatmap_words(), "labels": exhibits.labels(sample)}
            if with_reports:
                words["reports"] = exhibits.reports(sample) or "[]"
            return (prompt.turn(exhibits.pictures(sample), **words),)

        questions = [
            Question(partial(build, unit, sample), LatentName, prompt.identity)
            for unit, sample in zip(units, samples, strict=True)
        ]
        return self._proposals(questions, f"naming {firing.kind}s")

    def refine(
        self,
        firing: Firing,
        rows: np.ndarray,
        units: Sequence[int],
        names: Sequence[LatentName],
        samples: Sequence[Sample],
        missed: Sequence[Sequence[int]],
        mistaken: Sequence[Sequence[int]],
    ) -> list[Proposal]:
        """Names made anew with a judge's mistakes as counter-examples; `missed` and `mistaken` are places in `rows`."""
        prompt = load_prompt("refine")

        def build(k: int) -> Conversation:
            exhibits = Exhibits(firing, units[k], rows, self.style)
            shown = exhibits.pictures(replace(samples[k], spread=()))
            number = 1 + sum(map(len, shown.values()))
            shown["missed"] = exhibits.captioned(missed[k], number)
            shown["mistaken"] = exhibits.captioned(mistaken[k], number + len(missed[k]))
            words = {
                "heatmap": exhibits.heatmap_words(),
                "labels": exhibits.labels(samples[k]),
                "name": quoted(names[k]),
            }
            return (prompt.turn(shown, **words),)

        questions = [Question(partial(build, k), LatentName, prompt.identity) for k in range(len(units))]
        return self._proposals(questions, "refining")

    def _proposals(self, questions: Sequence[Question], what: str) -> list[Proposal]:
        return [
            Proposal(reply.answer if isinstance(reply.answer, LatentName) else None, reply.problem)
            for reply in self.asker.ask(questions, what)
        ]


def quoted(name: LatentName) -> str:
    """A name as JSON, for a prompt: whatever it says, it stands between quotation marks."""
    return json.dumps(name.model_dump(), ensure_ascii=False)


class VocabularyNamer:
    """The vocabulary's term that is nearest to a unit in the space that images and texts share.

    by:
        `decoder`: cosine of the unit's decoder direction with the terms' text embeddings. Both are taken to unit length
            and centred first, directions on the mean direction and texts on the mean text, since images and texts lie
            in separate cones (the modality gap) and only differences within each can be compared. At `hook_embedding`
            and `hook_embedding_unit`.
        `images`: the same with the unit's mean image embedding, weighted by its activations, in place of the direction,
            centred on the mean image embedding. At any hook; the store has to hold one of these two.
        None: by decoder at these two, by images elsewhere.
    """

    def __init__(
        self, encoder: HookedVisionEncoder, vocabulary: Vocabulary, by: Literal["decoder", "images"] | None = None
    ) -> None:
        self.encoder, self.by = encoder, by
        self.vocabulary = vocabulary.known_to(encoder)

    @property
    def identity(self) -> Mapping[str, Any]:
        encoder = {"encoder": self.encoder.name, "weights_sha256": self.encoder.weights_sha256}
        terms = {"terms": len(self.vocabulary), "terms_sha256": self.vocabulary.sha256()}
        return {"backend": "vocabulary", "by": self.by, **encoder, **terms}

    def propose(
        self, firing: Firing, units: Sequence[int], samples: Sequence[Sample], rows: np.ndarray
    ) -> list[Proposal]:
        if not units:
            return []
        stored = firing.store.weights_sha256
        if stored != self.encoder.weights_sha256:
            raise MedSAEError(f"the store was made with other weights of {self.encoder.name}; give the same")
        self.by = self.by or ("decoder" if firing.units.hook in EMBEDDINGS else "images")
        if self.by == "decoder":
            vectors = self._directions(firing)[list(units)]
        else:
            vectors = self._mean_embeddings(firing, units, rows)
        cosines = normalize(vectors, dim=1) @ self._texts.T
        best = cosines.argmax(1)
        return [
            _as_proposal(self.vocabulary.terms[term], float(cosines[i, term])) for i, term in enumerate(best.tolist())
        ]

    @cached_property
    def _texts(self) -> Float[torch.Tensor, "terms d"]:
        texts = normalize(self.encoder.encode_text(self.vocabulary.terms).float().cpu(), dim=1)
        return normalize(texts - texts.mean(0), dim=1)

    def _directions(self, firing: Firing) -> Float[torch.Tensor, "units d"]:
        if firing.units.hook not in EMBEDDINGS:
            raise MedSAEError(
                f"decoder directions at {firing.units.hook} are not in the space of the text tower, those at "
                f"{' and '.join(EMBEDDINGS)} are; name by images instead"
            )
        directions = normalize(firing.units.directions(), dim=1)
        return directions - directions.mean(0)

    def _mean_embeddings(
        self, firing: Firing, units: Sequence[int], rows: np.ndarray
    ) -> Float[torch.Tensor, "units d"]:
        hook = next((hook for hook in EMBEDDINGS if hook in firing.store.hooks), None)
        if hook is None:
            raise MedSAEError(f"{firing.store.path} does not hold {EMBEDDINGS[0]}; extract it too, to name by images")
        ids = firing.images.frame["image_id"].to_numpy()[rows]
        embeddings = normalize(firing.store.rows_of(hook, ids)[:, 0].double(), dim=1)
        embeddings -= embeddings.mean(0)
        weights = np.stack([np.maximum(firing.column(unit, rows), 0) for unit in units]).astype(np.float64)
        return (torch.from_numpy(weights / weights.sum(1, keepdims=True)) @ embeddings).float()


class LabelNamer:
    """The label that follows a unit most closely, by Pearson's r over the images that names are made from.

    held_out: a split of other patients. The r over them is the similarity that is told; where it is not above chance
        (p < 0.05), the unit has no name.
    """

    def __init__(self, held_out: str = "val") -> None:
        self.held_out = held_out

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"backend": "label", "held_out": self.held_out}

    def propose(
        self, firing: Firing, units: Sequence[int], samples: Sequence[Sample], rows: np.ndarray
    ) -> list[Proposal]:
        data = firing.images
        if not data.label_names:
            raise MedSAEError("the table has no label columns, so there is no label to name by")
        held_out = data.rows_in([self.held_out])
        if set(data.patient_codes[held_out]) & set(data.patient_codes[rows]):
            raise MedSAEError(f"split {self.held_out!r} shares patients with the images that names are made from")
        proposals = []
        for unit in units:
            chosen = firing.label_shares(unit, rows)
            label = max(chosen, key=lambda share: np.nan_to_num(share.r, nan=-np.inf)).label
            told = next(share for share in firing.label_shares(unit, held_out) if share.label == label)
            if told.r > 0 and told.p < CHANCE:
                proposals.append(_as_proposal(label, told.r))
            else:
                problem = f"follows no label above chance on held-out patients (strongest: {told})"
                proposals.append(Proposal(None, problem))
        return proposals


def _as_proposal(term: str, similarity: float) -> Proposal:
    try:
        return Proposal(LatentName(concept=term), similarity=round(similarity, 6))
    except ValidationError:
        return Proposal(None, f"{term[:80]!r} is no name: it is to be a line of 2 to 80 characters, a letter first")
