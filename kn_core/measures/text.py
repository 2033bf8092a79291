"""How near a caption comes to a reference in its text: BLEU, ROUGE-L and BERTScore (the text metrics of Table II).

Each takes N captions and a reference for each, and gives scores (N,), 1 for the same text. A text without a letter or a
digit says nothing and counts as empty: beside one that says something it scores 0, and two such have no score (NaN).
Everything else, one word or 'The . The .', is scored as it stands. `signature` is what to print beside the numbers.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import transformers
from transformers.utils.logging import disable_progress_bar

from kn_core.concepts import without_concept
from kn_core.weights.wheels import MINILM_L6, minilm

# The scorers are imported where they are used: that takes a second, and most pages score nothing.


# bert-score has tuned no layer for this model. The two six-layer models that it knows, distilbert and distilroberta, do
# best by their fifth: the last layer serves what an encoder was trained for, here the mean over a sentence.
MINILM_LAYERS = 5

Pair = tuple[str, str]  # a candidate and its reference


def references(clean: str, without: str, concept: str) -> tuple[str, str]:
    """What the perturbed caption of an image of `concept` is scored against: (for suppression, for retention).

    `clean` and `without` are the unperturbed captions of the original and of the inpainted image. Suppression is scored
    against what the model says where the object is not there, retention against `clean` with the concept's phrases
    taken out.
    """
    return without, without_concept(clean, concept)


def bleu(candidates: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Sentence BLEU (Papineni et al. 2002) by sacrebleu (Post 2018, 1804.08771), divided by 100: (N,) in [0, 1].

    Texts shorter than four words are scored on the n-grams that they have (effective order); of the orders without a
    match, the first counts half a match, the next a quarter (sacrebleu's `exp` smoothing). No match at all is 0.
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)

    def score(pairs: list[Pair]) -> list[float]:  # rounding leaves 100.00000000000004 where texts are the same
        return [min(scorer.sentence_score(said, [wanted]).score, 100) / 100 for said, wanted in pairs]

    return _scores(candidates, references, score)


def rouge_l(candidates: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """ROUGE-L (Lin 2004) by rouge-score: F1 of the longest common subsequence of words, (N,) in [0, 1].

    A word is a run of a-z and 0-9 in lower case, and nothing is stemmed; texts in other letters score 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])

    def score(pairs: list[Pair]) -> list[float]:
        return [scorer.score(target=wanted, prediction=said)["rougeL"].fmeasure for said, wanted in pairs]

    return _scores(candidates, references, score)


def bertscore(
    candidates: Sequence[str],
    references: Sequence[str],
    model: str | Path | None = None,
    num_layers: int | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """BERTScore (Zhang et al. 2020, 1904.09675) by bert-score: F1 of greedy cosine matching, (N,), without idf.

    Not rescaled, so unrelated English sentences score well above 0: read differences. Without a `model` it is
    all-MiniLM-L6-v2 out of a package; 'roberta-large', bert-score's own choice for English, or any other encoder of
    BERT's kind can be named where a hub is reachable, or a folder given. `num_layers` is the layer whose output is
    matched; ValueError where bert-score knows none for the model and none is given. Raises WeightsError.
    """
    from bert_score.utils import bert_cos_score_idf

    layers = _layers(model, num_layers)

    def score(pairs: list[Pair]) -> list[float]:
        encoder, tokenizer = _encoder(str(model or minilm()), layers)
        # Every token weighs the same, but for the two that frame a text.
        weights = defaultdict(lambda: 1.0, {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0})
        said, wanted = map(list, zip(*pairs, strict=True))
        found = bert_cos_score_idf(encoder, wanted, said, tokenizer, weights, batch_size=batch_size, device="cpu")
        f1: list[float] = found[:, 2].tolist()
        return f1

    return _scores(candidates, references, score)


def signature(model: str | Path | None = None, num_layers: int | None = None) -> dict[str, str]:
    """Which versions and settings a number comes from: sacrebleu's signature, rouge-score's, bert-score's hash.

    bert-score 0.3.13 calls itself 0.3.12 in its hash. A model in a folder goes by the folder's name.
    """
    from bert_score.utils import get_hash
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)
    scorer.sentence_score("a", ["a"])  # it has no signature before it has scored
    name = MINILM_L6.requirement if model is None else model.name if isinstance(model, Path) else model
    return {
        "BLEU": str(scorer.get_signature()),
        "ROUGE-L": f"rougeL|measure:f1|stemmer:no|version:{version('rouge-score')}",
        "BERTScore": get_hash(name, _layers(model, num_layers), False, False, False, False),
    }


def _scores(
    candidates: Sequence[str], references: Sequence[str], score: Callable[[list[Pair]], list[float]]
) -> np.ndarray:
    """`score` of each distinct pair of texts that both say something; what the others get is defined above."""
    if len(candidates) != len(references):
        raise ValueError(f"every candidate needs one reference. Got {len(candidates)} and {len(references)}.")
    says = re.compile(r"[^\W_]").search
    pairs = list(zip(candidates, references, strict=True))
    distinct = [pair for pair in dict.fromkeys(pairs) if all(map(says, pair))]
    known = dict(zip(distinct, score(distinct), strict=True)) if distinct else {}
    return np.array([known.get(pair, 0.0 if any(map(says, pair)) else math.nan) for pair in pairs], dtype=float)


def _layers(model: str | Path | None, num_layers: int | None) -> int:
    from bert_score.utils import model2layers

    layers = num_layers or (MINILM_LAYERS if model is None else model2layers.get(str(model)))
    if layers is None:
        raise ValueError(f"bert-score has no layer for {model}: give num_layers, the layer whose output is matched.")
    return int(layers)


@cache
def _encoder(model: str, num_layers: int) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """The first `num_layers` layers of an encoder, and its tokenizer.

    Not by bert-score's own loader: it takes every path that holds the letters 't5' for a T5 model.
    """
    disable_progress_bar()  # transformers draws one for weights that are on disk, too
    encoder = transformers.AutoModel.from_pretrained(model).eval()
    found = len(encoder.encoder.layer)
    if not 0 < num_layers <= found:
        raise ValueError(f"num_layers must lie in 1..{found} for {model}. Got {num_layers}.")
    encoder.encoder.layer = encoder.encoder.layer[:num_layers]
    return encoder, transformers.AutoTokenizer.from_pretrained(model)
