"""Questions: windows and offsets, the best spans, when none is told, and a BERT that learns."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.errors import RllabError
from language.models.bert import BERTConfig
from language.models.bert_tasks import BERTSpans, BERTSpansConfig
from language.tasks.answer_ranking import best_spans, best_threshold, ranked_answers
from language.tasks.answer_windows import AnsweringConfig, Window, all_windows, collated, windows_of
from language.tasks.answering import Answerer, Answering
from language.tasks.squad import Answer, Question
from language.tokenizers import WordPiece, WordPieceConfig
from language.tokenizers.wordpiece import BERT_SPECIAL
from language.training.fine_tuning import fine_tuning
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig

CONTEXT = "Ada Lovelace wrote the first program in 1843, Élise says."
QUESTION = Question("q1", "Who wrote it?", CONTEXT, (Answer("Ada Lovelace", 0), Answer("Lovelace", 4)))
NONE = Question("q2", "Who sings?", CONTEXT)
PIECES = [
    "who", "wrote", "it", "?", "sings", "ada", "love", "##lace", "the", "first", "program", "in", "1843", ",", "elise",
    "says", ".", "red", "blue", "green", "what", "colour", "is", "box", "cup", "hat",
]  # fmt: skip
TOKENIZER = WordPiece(
    {token: number for number, token in enumerate([*BERT_SPECIAL.tokens(), *PIECES])}, WordPieceConfig()
)
ID = TOKENIZER.vocabulary
CONFIG = AnsweringConfig(batch_size=4, length=24, stride=4, longest_question=6, longest_answer=4)


def model_of(context: int = 32, width: int = 16, layers: int = 1, initial_std: float = 0.02) -> BERTSpans:
    torch.manual_seed(0)
    config = BERTConfig(len(TOKENIZER), context, layers, 2, width, dropout=0.0, initial_std=initial_std)
    return BERTSpans(BERTSpansConfig(config))


def test_offsets_of_the_answer_s_tokens_give_the_answer_back() -> None:
    for text in ("Ada Lovelace", "1843", "Élise", "the first program", "says."):
        question = replace(QUESTION, answers=(Answer(text, CONTEXT.index(text)),))
        for config in (AnsweringConfig(), CONFIG):
            holding = [w for w in windows_of(0, question, TOKENIZER, config) if w.answer != (0, 0)]
            assert holding
            for window in holding:
                first, last = (place - window.begin for place in window.answer)
                assert window.text(CONTEXT, first, last) == text


def test_a_window_is_the_question_and_a_part_of_the_context() -> None:
    [window] = windows_of(3, QUESTION, TOKENIZER, AnsweringConfig())
    asked = [ID[token] for token in ("who", "wrote", "it", "?")]
    told = [
        ID[token]
        for token in [
            "ada",
            "love",
            "##lace",
            "wrote",
            "the",
            "first",
            "program",
            "in",
            "1843",
            ",",
            "elise",
            "says",
            ".",
        ]
    ]
    assert window.packed.tokens == [ID["[CLS]"], *asked, ID["[SEP]"], *told, ID["[SEP]"]]
    assert window.packed.segments == [0] * 6 + [1] * 14
    assert (window.question, window.begin, window.answer) == (3, 6, (6, 8))
    assert CONTEXT[slice(*window.offsets[2])] == "lace"


def test_long_contexts_are_read_in_windows_that_overlap() -> None:
    config = replace(CONFIG, length=14)  # 4 of the question, 3 markers, 7 of the context's 13
    windows = windows_of(0, replace(QUESTION, answers=(Answer("first program in", 23),)), TOKENIZER, config)
    tokens = TOKENIZER.ids(CONTEXT)
    assert [window.packed.tokens[6:-1] for window in windows] == [tokens[0:7], tokens[4:11], tokens[8:13]]
    assert [window.answer for window in windows] == [(0, 0), (7, 9), (0, 0)]  # tokens 5 to 7, whole in the second only
    # Tokens 4, 5 and 6 have 2, 1 and 0 tokens on the first's poorer side, and 0, 1 and 2 on the second's; tokens 8, 9
    # and 10 have 2, 1 and 0 on the second's and 0, 1 and 2 on the third's, which is shorter. Of equal ones the first.
    assert [window.best_seen.astype(int).tolist() for window in windows] == [
        [1, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1],
    ]  # fmt: skip


@pytest.mark.parametrize("stride", [1, 3, 5, 100])
def test_each_token_is_best_seen_in_one_window(stride: int) -> None:
    config = replace(CONFIG, length=13, stride=stride)
    total = np.zeros(13, int)
    for window in windows_of(0, QUESTION, TOKENIZER, config):
        assert len(window.packed.tokens) <= 13
        for seen, (start, _) in zip(window.best_seen, window.offsets, strict=True):
            total[[a for a, _ in TOKENIZER.encode(CONTEXT).offsets].index(start)] += seen
    assert total.tolist() == [1] * 13


def test_an_empty_context_is_refused() -> None:
    with pytest.raises(RllabError, match="q has an empty context"):
        windows_of(0, Question("q", "Who?", "  "), TOKENIZER, CONFIG)


def test_the_best_spans_are_those_of_all_that_may_be() -> None:
    generator = torch.Generator().manual_seed(0)
    for length, longest in ((1, 4), (3, 4), (9, 4), (9, 1), (9, 30)):
        starts, ends = torch.randn(2, length, generator=generator).unbind(0)
        may = torch.arange(length) != 1
        config = replace(CONFIG, longest_answer=longest, candidates=5)
        expected = sorted(
            (
                (float(starts[a] + ends[b]), a, b)
                for a, b in product(range(length), repeat=2)
                if a <= b < a + longest and a != 1
            ),
            reverse=True,
        )[:5]
        found = best_spans(starts, ends, config, may)
        assert [(a, b) for _, a, b in found] == [(a, b) for _, a, b in expected]
        assert [score for score, _, _ in found] == pytest.approx([score for score, _, _ in expected])


class Told(nn.Module):
    """Says what it is given to say of each token, whatever stands around it."""

    def __init__(self, starts: dict[str, float], ends: dict[str, float]) -> None:
        super().__init__()
        self.starts, self.ends = torch.zeros(len(ID)), torch.zeros(len(ID))
        for table, given in ((self.starts, starts), (self.ends, ends)):
            for token, logit in given.items():
                table[ID[token]] = logit

    def forward(self, tokens: Tensor, valid: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        return self.starts[tokens], self.ends[tokens]


def ranked(model: nn.Module, config: AnsweringConfig, question: Question = QUESTION) -> list[Any]:
    return ranked_answers(model, [question], windows_of(0, question, TOKENIZER, config), config)[0]


@pytest.mark.parametrize("length", [24, 13])
def test_answers_of_several_windows_are_ranked_together(length: int) -> None:
    model = Told({"ada": 5, "in": 4, "who": 99}, {"##lace": 3, "1843": 3.5, "love": 1, "?": 99})
    best = ranked(model, replace(CONFIG, length=length, candidates=4))
    assert [answer.text for answer in best][:3] == ["Ada Lovelace", "in 1843", "Ada Love"]
    assert [answer.score for answer in best][:3] == pytest.approx([8, 7.5, 6])
    assert all(CONTEXT[answer.start : answer.end] == answer.text for answer in best)
    assert sum(answer.probability for answer in best) == pytest.approx(1)
    assert best[0].probability / best[1].probability == pytest.approx(np.exp(0.5), rel=1e-4)


def test_ranked_answers_are_those_of_all_spans_of_all_windows() -> None:
    config = replace(CONFIG, length=13, candidates=100, may_lack_answer=True, threshold=-100.0)
    model = model_of(initial_std=0.5).eval()
    windows = windows_of(0, QUESTION, TOKENIZER, config)
    assert len(windows) > 2
    expected: dict[str, float] = {}
    none: list[float] = []
    for window in windows:
        starts, ends = (
            logits[0].tolist()
            for logits in model(torch.tensor([window.packed.tokens]), None, torch.tensor([window.packed.segments]))
        )
        none.append(starts[0] + ends[0])
        for a, b in product(range(len(window.offsets)), repeat=2):
            if window.best_seen[a] and a <= b < a + config.longest_answer:
                text = CONTEXT[window.offsets[a, 0] : window.offsets[b, 1]]
                score = starts[window.begin + a] + ends[window.begin + b]
                expected[text] = max(score, expected.get(text, -np.inf))
    expected[""] = min(none)
    found = {answer.text: answer.score for answer in ranked_answers(model, [QUESTION], windows, config)[0]}
    assert found == pytest.approx(expected, rel=1e-4)
    assert max(none) - min(none) > 0.01


def test_no_answer_is_told_where_its_score_is_above_the_best_by_the_threshold() -> None:
    model = Told({"ada": 5, "[CLS]": 5}, {"##lace": 3, "[CLS]": 4})  # 8 for the answer, 9 for none
    assert ranked(model, CONFIG)[0].text == "Ada Lovelace"
    assert all(answer.text for answer in ranked(model, CONFIG))
    for threshold, first in ((0.0, ""), (0.9, ""), (1.1, "Ada Lovelace")):
        config = replace(CONFIG, may_lack_answer=True, threshold=threshold)
        best = ranked(model, config)
        assert best[0].text == first
        assert {answer.text: answer.score for answer in best}[""] == pytest.approx(9)


def test_the_threshold_is_the_one_with_the_highest_f1() -> None:
    config = replace(CONFIG, may_lack_answer=True)
    base = ranked(Told({}, {}), config)[0]

    def answers(margin: float, text: str) -> list[Any]:
        return [base._replace(text=text, score=1.0), base._replace(text="", score=1.0 + margin)]

    right = "Ada Lovelace"
    judged = [answers(-1, "it"), answers(1, right), answers(-2, right), answers(0.5, right), answers(3, "it")]
    questions = [NONE, QUESTION, QUESTION, QUESTION, NONE]
    # Up to −2 one question is answered, and both without an answer are right: 3; up to 1 all three are, and one is: 4.
    threshold, best = best_threshold(judged, questions)
    assert (threshold, best) == (1.0, 0.8)
    assert best_threshold(judged[:1], questions[:1]) == (-2.0, 1.0)
    with pytest.raises(RllabError, match="may_lack_answer"):
        best_threshold([ranked(Told({}, {}), CONFIG)], [QUESTION])


def test_the_loss_is_the_mean_of_both_cross_entropies_over_the_context_and_cls() -> None:
    config = replace(CONFIG, length=14, may_lack_answer=True)
    problem = Answering([QUESTION, NONE], [QUESTION, NONE], TOKENIZER, config)
    model, batch = model_of(), problem.batch()
    loss = problem.loss(model, batch)
    starts, ends = model(batch.tokens, batch.valid, batch.segments)
    expected = 0.0
    for row in range(len(starts)):
        places = batch.allowed[row].nonzero().flatten()
        assert places[0] == 0
        assert batch.tokens[row, places[1] - 1] == ID["[SEP]"]
        for logits, target in ((starts, batch.starts[row]), (ends, batch.ends[row])):
            expected += functional.cross_entropy(logits[row, places], (places == target).int().argmax()).item() / 2
    assert loss.count == len(starts)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_windows_are_judged_alike_whatever_is_read_with_them() -> None:
    config = replace(CONFIG, may_lack_answer=True)
    model = model_of().eval()
    questions = [QUESTION, NONE, Question("q3", "What is the first?", "The box is red.", (Answer("red", 11),))]
    together = Answerer(model, TOKENIZER, config).answer_all(questions)
    for question, answers in zip(questions, together, strict=True):
        alone = Answerer(model, TOKENIZER, config).answer(question.question, question.context)
        assert [answer.text for answer in alone] == [answer.text for answer in answers]
        assert [a.score for a in alone] == pytest.approx([a.score for a in answers], rel=1e-4)


def test_evaluation_is_exact_match_and_f1_of_the_best_answers() -> None:
    problem = Answering([QUESTION], [QUESTION], TOKENIZER, CONFIG)
    model = Told({"love": 5}, {"##lace": 5})
    assert problem.evaluate(model) == {"exact_match": 1.0, "f1": 1.0}
    assert problem.evaluate(Told({"ada": 5}, {"ada": 5})) == {"exact_match": 0.0, "f1": pytest.approx(2 / 3)}


def test_questions_that_cannot_be_learnt_from_are_refused() -> None:
    with pytest.raises(RllabError, match="no question for training"):
        Answering([], [QUESTION], TOKENIZER, CONFIG)
    with pytest.raises(RllabError, match="q2 has no answer; set may_lack_answer"):
        Answering([QUESTION], [NONE], TOKENIZER, CONFIG)
    for wrong in ({"batch_size": 0}, {"stride": 0}, {"longest_answer": 0}, {"candidates": 0}, {"length": 9}):
        with pytest.raises(RllabError, match=next(iter(wrong))):
            replace(CONFIG, **wrong)  # type: ignore[arg-type]
    with pytest.raises(RllabError, match="longer than the model's 12 positions"):
        Answerer(model_of(context=12), TOKENIZER, CONFIG).answer("Who wrote it?", CONTEXT)


def coloured(count: int, seed: int) -> list[Question]:
    """A thing has a colour, said in two ways among other words; the question is after the one or the other."""
    generator = np.random.default_rng(seed)
    questions = []
    for number in range(count):
        thing, colour = (str(generator.choice(words)) for words in (["box", "cup", "hat"], ["red", "blue", "green"]))
        told = f"{colour} is the {thing}." if generator.random() < 0.5 else f"The {thing} is {colour}."
        context = " ".join(generator.permutation([told, "Ada sings.", "Elise wrote it."]))
        question, text = ("What colour is it?", colour) if generator.random() < 0.5 else ("What is it?", thing)
        questions.append(Question(str(number), question, context, (Answer(text, context.index(text)),)))
    return questions


def test_answering_goes_on_exactly() -> None:
    def training() -> SupervisedTraining:  # type: ignore[type-arg]
        problem = Answering(coloured(9, 0), [QUESTION], TOKENIZER, replace(CONFIG, length=26))
        return SupervisedTraining(model_of(), problem, TrainingConfig(steps=6, warmup=0), quiet=True)

    straight = training()
    expected = [straight.step()["loss"] for _ in range(6)]
    stopped = training()
    for _ in range(2):
        stopped.step()
    resumed = training()
    resumed.load_state_dict(stopped.state_dict())
    assert [resumed.step()["loss"] for _ in range(4)] == expected[2:]


def test_all_windows_know_their_questions() -> None:
    windows: list[Window] = all_windows([QUESTION, NONE], TOKENIZER, replace(CONFIG, length=14))
    assert [window.question for window in windows] == [0, 0, 0, 1, 1, 1]
    assert collated(windows).starts.tolist() == [window.answer[0] for window in windows]


@pytest.mark.slow
def test_a_small_bert_learns_what_is_asked() -> None:
    config = AnsweringConfig(batch_size=16, length=32, stride=8, longest_question=8, longest_answer=4)
    problem = Answering(coloured(200, 0), coloured(60, 1), TOKENIZER, config)
    model = model_of(width=32, layers=2, initial_std=0.15)
    settings = fine_tuning(problem.epoch_batches, epochs=20, learning_rate=2e-3)
    judged = SupervisedTraining(model, problem, settings, quiet=True).run()
    assert judged["exact_match"] > 0.95  # without a look at the question half are right
    [best, *_] = Answerer(model.eval(), TOKENIZER, config).answer("What colour is it?", "Ada sings. The cup is blue.")
    assert (best.text, best.start) == ("blue", 22)
