"""The parts of a reward of texts that is learnt beside tuning: the teacher, the questions, the fits and their scale."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_teaching import FAST, RUN, SCORE, questions
from tiny_texts import PROMPTS, RESPONSE, gpt, policy, share_of_a, tokenizer

from envs.errors import RllabError
from language.models.gpt import GPT, GPTConfig
from language.preferences.data import TextsConfig, read_comparisons
from language.preferences.learned_reward import LearnedReward, sides
from language.preferences.policy import TextPolicy
from language.preferences.responses import ResponsesConfig
from language.preferences.scoring_teacher import ScoringTeacher
from language.preferences.teaching_config import TeacherFlaws, TeachingConfig
from language.preferences.text_questions import TextQuestions
from language.tokenizers.character import CharacterLevel, CharacterLevelConfig
from preference.comparisons import Answer, Clip, Label
from preference.dataset import ComparisonData
from preference.exchange import export_store
from preference.store import Store, Task
from preference.teachers import SyntheticTeacher


def clip(number: int, response: str, prompt: str = "ab") -> Clip:
    return Clip(uuid.UUID(int=number), {}, details={"prompt": prompt, "response": response})


def learned(model: GPT | None = None, seed: int = 0, **settings: Any) -> LearnedReward:
    return LearnedReward(model or gpt(), tokenizer(), TeachingConfig((SCORE,), **{**FAST, **settings}), seed=seed)


def comparisons(count: int, members: int = 1, seed: int = 0, held_out: float = 0.2) -> ComparisonData:
    """Random responses, of which that with more a's is better."""
    generator = np.random.default_rng(seed)
    data = ComparisonData(members, np.random.default_rng(1), held_out=held_out)
    for number in range(count):
        first, second = ("".join(generator.choice(list("abch"), 6)) for _ in range(2))
        difference = first.count("a") - second.count("a")
        clips = clip(2 * number + 1, first), clip(2 * number + 2, second)
        data.add(*clips, 0.5 if difference == 0 else float(difference > 0), str(number))
    return data


# The teacher.


def test_a_scoring_teacher_prefers_the_higher_score_and_calls_equal_ones_a_tie() -> None:
    teacher = ScoringTeacher(share_of_a, SyntheticTeacher(TeacherFlaws().judgement(), np.random.default_rng(0)))
    texts = [clip(1, "aa"), clip(2, "ab"), clip(3, "ba")]
    pairs = [(texts[0], texts[1]), (texts[1], texts[0]), (texts[1], texts[2])]
    assert teacher.label(pairs) == [Label.FIRST, Label.SECOND, Label.TIE]
    assert all(not text.arrays for text in texts)


def test_a_teachers_flaws_are_those_of_clips() -> None:
    pairs = [(clip(1, "aa"), clip(2, "ab"))] * 2000
    wrong = ScoringTeacher(
        share_of_a, SyntheticTeacher(TeacherFlaws(teacher_mistakes=0.25).judgement(), np.random.default_rng(0))
    )
    assert wrong.label(pairs).count(Label.SECOND) / 2000 == pytest.approx(0.25, abs=0.03)
    # The scores differ by 1/8, so that β = 8 makes the logit 1.
    boltzmann = ScoringTeacher(
        share_of_a, SyntheticTeacher(TeacherFlaws(teacher_beta=8.0).judgement(), np.random.default_rng(0))
    )
    assert boltzmann.label(pairs).count(Label.FIRST) / 2000 == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)
    blind = ScoringTeacher(
        share_of_a, SyntheticTeacher(TeacherFlaws(teacher_equal=0.2).judgement(), np.random.default_rng(0))
    )
    assert set(blind.label(pairs[:10])) == {Label.TIE}


# The questions.


def test_a_question_is_about_two_different_responses_to_one_prompt_and_none_comes_twice() -> None:
    asking, writer, reward = questions(labels=80), policy(), learned()
    found = [question for _ in range(4) for question in asking.choose(writer, reward, 20, policy_step=7)]
    assert asking.asked == len(found) == 80
    assert asking.choose(writer, reward, 20, 7) == []
    for question in found:
        first, second = question.first.details, question.second.details
        assert first["prompt"] == second["prompt"]
        assert first["response"] != second["response"]
        assert first["response"].strip()
        assert second["response"].strip()
        assert question.first.policy_step == 7
    assert len({frozenset((q.first.id, q.second.id)) for q in found}) == 80
    assert {q.first.details["prompt"] for q in found} == set(PROMPTS)


def test_the_same_text_has_the_same_id_in_the_same_run_and_another_in_another() -> None:
    one, other = questions()._clip("ab", "c", 1), questions()._clip("ab", "c", 2)
    assert one.id == other.id != questions()._clip("a", "bc", 1).id
    apart = questions()
    apart.run = RUN[::-1]
    assert apart._clip("ab", "c", 1).id != one.id


def test_hostile_prompts_and_responses_are_kept_and_exported_as_they_are(tmp_path: Path) -> None:
    letters = CharacterLevel.train(
        ["\0<b>&\u202e\u05e9\u05dc'\"\n"], CharacterLevelConfig(special=tokenizer().config.special)
    )
    torch.manual_seed(0)
    model = GPT(GPTConfig(len(letters), 24, layers=1, heads=2, width=16))
    prompts = ["\0<b>", "\u202e\u05e9\u05dc", "<b>&\"'\n"]
    asking = TextQuestions(
        TeachingConfig((SCORE,), labels=30), [letters.ids(prompt) for prompt in prompts], letters,
        ResponsesConfig(RESPONSE), steps=1000, seed=0, run=RUN,
    )  # fmt: skip
    reward = LearnedReward(model, letters, TeachingConfig((SCORE,)), seed=0)
    found = asking.choose(TextPolicy(model, tokenizer=letters), reward, 30, 0)
    assert {question.first.details["prompt"] for question in found} == set(prompts)
    clips = [each for question in found for each in (question.first, question.second)]
    pairs = [question.pair(RUN) for question in found]
    with Store.open(tmp_path / "s.sqlite", Task("", "texts")) as store:
        store.add_clips(clips)
        store.ask(pairs)
        store.answer([Answer(uuid.uuid4(), pair.id, "ann", Label.SECOND) for pair in pairs])
    with Store.open(tmp_path / "s.sqlite") as store:
        assert store.clips([each.id for each in clips]) == clips
        export_store(store, tmp_path / "pairs.jsonl", "chosen")
    read = read_comparisons(TextsConfig((str(tmp_path / "pairs.jsonl"),))).items
    assert [(each.prompt, each.first, each.second, each.mu) for each in read] == [
        (q.first.details["prompt"], q.second.details["response"], q.first.details["response"], 1.0) for q in found
    ]


def test_an_ensemble_is_asked_about_what_it_disagrees_on() -> None:
    reward = learned(reward_members=3)
    letters = "abcdefgh"
    reward.normalise_over(["ab"] * 8, list(letters))
    reward.fit(comparisons(30, members=3))
    asking = questions(labels=100, reward_members=3, candidates=10)
    chosen = asking.choose(policy(), reward, 10, 0)
    at_random = questions(labels=100, reward_members=3, queries="uniform").choose(policy(), reward, 60, 0)

    def disagreement(found: list[Any]) -> float:
        differences = reward.differences([(question.first, question.second) for question in found])
        return float((1 / (1 + np.exp(-differences))).var(0).mean())

    assert {question.strategy for question in chosen} == {"disagreement"}
    assert disagreement(chosen) > 2 * disagreement(at_random)


# The reward.


def test_scores_have_mean_0_and_deviation_1_on_the_same_texts_after_every_fit() -> None:
    reward, data = learned(), comparisons(60)
    prompts, responses = ["ab"] * 32, ["".join(np.random.default_rng(n).choice(list("abcdefgh"), 5)) for n in range(32)]
    reward.normalise_over(prompts, responses)
    for count in (60, 90):
        reward.fit(data)
        scores = np.array(reward(prompts, responses))
        assert scores.mean() == pytest.approx(0, abs=1e-5)
        assert scores.std() == pytest.approx(1, abs=1e-5)
        assert len(data) <= count
        for extra in range(30):
            data.add(clip(1000 + 2 * extra, "aaa"), clip(1001 + 2 * extra, "hhh"), 1.0, f"more {extra}")
    assert reward.fits == 2


def test_a_fit_agrees_with_comparisons_that_it_did_not_learn_from() -> None:
    reward, data = learned(reward_epochs=12), comparisons(240)
    reward.normalise_over(["ab"] * 16, ["".join(np.random.default_rng(n).choice(list("abch"), 5)) for n in range(16)])
    measures = reward.fit(data)
    learnt, held_out = sides(data)
    assert not (learnt & held_out).any()
    assert measures["reward/held_out_comparisons"] == held_out.sum() > 20
    assert measures["reward/held_out_accuracy"] > 0.85
    fresh = comparisons(100, seed=9)
    pairs = [tuple(fresh.clips[index] for index in pair) for pair in fresh.pairs]
    right = [
        (difference > 0) == (mu > 0.5)
        for difference, mu in zip(reward.differences(pairs)[0], fresh.preferences, strict=True)  # type: ignore[arg-type]
        if mu != 0.5
    ]
    assert np.mean(right) > 0.85


def test_a_fit_leaves_the_language_model_and_torchs_generator_alone_and_comes_again() -> None:
    model = gpt()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for _ in range(2):
        reward = learned(model, seed=3)
        reward.normalise_over(["ab"] * 4, ["a", "b", "cc", "hhh"])
        state = torch.get_rng_state()
        reward.fit(comparisons(30))
        assert torch.equal(state, torch.get_rng_state())
        found.append(reward(["ab", "c"], ["aab", "hh"]))
    assert found[0] == found[1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_member_of_an_ensemble_learns_from_its_own_sample_of_the_answers() -> None:
    reward, data = learned(reward_members=2, reward_epochs=10, reward_held_out=0.0), comparisons(80, 2, held_out=0.0)
    counts = data.counts()
    assert not np.array_equal(counts[0], counts[1])
    data._counts = [np.array([1.0, 0.0], np.float32) for _ in data.pairs]  # the second is given nothing
    reward.normalise_over(["ab"] * 4, ["a", "b", "cc", "hhh"])
    reward.fit(data)
    pairs = [tuple(data.clips[index] for index in pair) for pair in data.pairs]
    decided = np.array(data.preferences) != 0.5
    right = (reward.differences(pairs) > 0) == (np.array(data.preferences) > 0.5)  # type: ignore[arg-type]
    assert right[0, decided].mean() > 0.85 > right[1, decided].mean()


def test_where_too_few_are_left_to_learn_from_all_are_learnt_from() -> None:
    data = ComparisonData(1, np.random.default_rng(0), held_out=0.999)
    data.add(clip(1, "a"), clip(2, "b"), 1.0)
    learnt, held_out = sides(data)
    assert learnt.all()
    assert not held_out.any()


def test_before_its_first_fit_a_reward_has_no_scores() -> None:
    with pytest.raises(RllabError, match="has not been learnt yet"):
        learned()(["a"], ["b"])
