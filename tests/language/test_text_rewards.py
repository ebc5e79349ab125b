"""Rewards of texts: rules by hand, models against their own numbers, sums, and functions of Python."""

from pathlib import Path

import pytest
import torch
from tiny_texts import share_of_a, tokenizer
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.folder import save_model
from language.models.gpt import GPTConfig
from language.models.gpt_classifier import GPTClassifier, GPTClassifierConfig
from language.preferences.rewards import KeywordReward, LengthReward, ModelReward, WeightedSum, make_reward, score
from language.tasks.classifying import Classifier


def test_keywords_are_whole_words_in_any_case() -> None:
    reward = KeywordReward(("great", "good"))
    assert reward(["", "", "great"], ["Great, and goodness", "GOOD good", ""]) == [1.0, 2.0, 0.0]


def test_keywords_are_parted_by_commas_and_there_is_one_at_least() -> None:
    assert make_reward(["keywords: great, so good ,"]) == KeywordReward(("great", "so good"))
    with pytest.raises(RllabError, match="'keywords: ,' names no words"):
        make_reward(["keywords: ,"])


def test_a_length_is_best_where_it_is_met() -> None:
    assert LengthReward(4)(["p"] * 4, ["a b c d", "a b", "", "a b c d e f g h"]) == [0.0, -0.5, -1.0, -1.0]


def test_rewards_are_summed_with_their_weights() -> None:
    reward = make_reward(["2*keywords:a", "-0.5*length:1", "python:tiny_texts:share_of_a"])
    assert isinstance(reward, WeightedSum)
    # "a a": twice 2 words, minus half of −1, and 2 letters of 8.
    assert list(score(reward, ["p"], ["a a"])) == [4.0 + 0.5 + 0.25]
    assert make_reward(["python:tiny_texts:share_of_a"]) is share_of_a


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    letters = tokenizer()
    config = GPTClassifierConfig(
        classes=("bad", "good"), gpt=GPTConfig(len(letters), 32, layers=1, heads=1, width=8, initial_std=0.5)
    )
    path = tmp_path_factory.mktemp("classifier")
    save_model(path, GPTClassifier(config), letters)
    return path


def test_a_classifiers_reward_is_the_log_odds_of_a_class(classifier: Path) -> None:
    prompts, responses = ["ab", "c", "de"], [" cab", "deaf", ""]
    probabilities = Classifier.load([classifier]).probabilities([("ab cab",), ("cdeaf",), ("de",)])
    found = score(make_reward([f"classifier:{classifier}"]), prompts, responses)
    expected = (probabilities[:, 1] / probabilities[:, 0]).log()
    torch.testing.assert_close(torch.from_numpy(found).float(), expected, rtol=1e-4, atol=1e-5)
    other = score(make_reward([f"classifier:{classifier}:bad"]), prompts, responses)
    torch.testing.assert_close(torch.from_numpy(other), -torch.from_numpy(found), rtol=1e-4, atol=1e-5)
    assert list(score(make_reward([f"classifier:{classifier}"]), ["", ""], ["", " "])) == [0.0, 0.0]
    with pytest.raises(RllabError, match="has no class 'fine'; it has bad, good"):
        make_reward([f"classifier:{classifier}:fine"])


class Count(nn.Module):
    """Scores a row by its last token and its length."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def score(self, tokens: Tensor, valid: Tensor) -> Tensor:
        last = valid.sum(1) - 1
        return self.weight * (100 * last + tokens[torch.arange(len(tokens)), last])


def test_a_reward_model_reads_prompt_and_response_with_the_end_token_padded_on_the_right() -> None:
    letters = tokenizer()
    end = letters.vocabulary["<end>"]
    reward = ModelReward(Count(), letters)
    prompts, responses = ["ab"] * 40, ["c" * (1 + number % 5) for number in range(40)]
    assert reward(prompts, responses) == [100.0 * (2 + len(response)) + end for response in responses]
    assert ModelReward(Count(), letters, context=3)(["abc"], ["defg"]) == [200.0 + end]
