"""A vocabulary from reports: the entities that a clinical spaCy pipeline finds and that NegEx does not find denied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from medsae_plugin.errors import MedSAEError
from medsae_plugin.naming.vocabulary import Vocabulary

MODEL = "en_core_sci_sm"
_MOST_WORDS = 6
_LEADING = re.compile(r"^(?:the|a|an|there is|there are|new|any)\s+")


def extract_terms(
    reports: Sequence[str], model: str = MODEL, *, fewest: int = 5, progress: bool = True
) -> tuple[Vocabulary, list[int]]:
    """The terms that at least `fewest` reports affirm, the most frequent first, and how many reports do.

    Entities are found by a spaCy pipeline, such as scispaCy's (Neumann et al. 2019, arXiv 1902.07669); those that are
    denied are left out by NegEx (Chapman et al. 2001) with its clinical phrases. A term's category is that of the
    package's vocabulary if it is there, else the pipeline's entity label. A bound on the reports keeps out what few
    reports say, such as names.

    Args:
        model: an installed pipeline's name, or a folder that `nlp.to_disk` wrote. It has to find entities.

    Raises:
        MedSAEError: spaCy, NegEx or the pipeline is missing, the pipeline finds no entities, or no term is so frequent.
    """
    nlp = _pipeline(model)
    seed = Vocabulary.seed()
    counts: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = {}
    for document in tqdm(nlp.pipe(reports), total=len(reports), desc="reports", disable=not progress):
        found = {(_term(entity.text), entity.label_) for entity in document.ents if not entity._.negex}
        for term, label in found:
            labels.setdefault(term, Counter())[label] += 1
        counts.update({term for term, _ in found if term})
    kept = sorted((term for term, count in counts.items() if count >= fewest), key=lambda term: (-counts[term], term))
    if not kept:
        raise MedSAEError(f"no term is affirmed in {fewest} of {len(reports)} reports or more")
    categories = [seed.category_of(term) or min(labels[term].most_common())[0] for term in kept]
    return Vocabulary(tuple(kept), tuple(categories)), [counts[term] for term in kept]


def _term(text: str) -> str:
    """An entity as a term: lower case, single spaces, no article; "" for what is no term."""
    term = _LEADING.sub("", " ".join(text.lower().split())).strip(" .,;:()[]\"'-/")
    return term if re.search(r"[^\W\d_]{2}", term) and len(term.split()) <= _MOST_WORDS and len(term) <= 80 else ""


def _pipeline(model: str) -> Any:
    try:
        import spacy
        from negspacy.negation import Negex  # noqa: F401, it registers "negex" with spaCy
        from negspacy.termsets import termset
    except ImportError as error:
        raise MedSAEError(
            f"terms are found with spaCy and NegEx ({error}): pip install 'medsae-plugin[reports]'"
        ) from None
    try:
        nlp = spacy.load(model)
    except OSError:
        raise MedSAEError(
            f"there is no spaCy pipeline {model!r}; install scispaCy's from its address at "
            "https://allenai.github.io/scispacy (pip install --no-deps ADDRESS), or give a pipeline's folder"
        ) from None
    if not {"ner", "entity_ruler", "span_ruler"} & set(nlp.pipe_names):
        raise MedSAEError(f"the spaCy pipeline {model!r} finds no entities; its parts are {', '.join(nlp.pipe_names)}")
    if not {"parser", "senter", "sentencizer"} & set(nlp.pipe_names):
        nlp.add_pipe("sentencizer", first=True)
    nlp.add_pipe("negex", config={"neg_termset": termset("en_clinical").get_patterns()})
    return nlp
