"""A language model as a policy: probabilities, values, Fisher products, what is shared and what padding may not do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_texts import PROMPTS, RESPONSE, collector, gpt, policy, tokenizer
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.bert import BERT, BERTConfig
from language.models.transformer import Transformer, TransformerConfig
from language.preferences.chosen import chosen_tokens
from language.preferences.policy import TextPolicy, TextPolicyConfig
from language.tokenizers.character import CharacterLevel, CharacterLevelConfig
from language.tokenizers.special import SpecialTokens
from rllab.agents import PPO, TRPO, PPOConfig, Reinforce, ReinforceConfig, TRPOConfig
from rllab.rollout import Batch, Rollout

COMMON: dict[str, Any] = {"rollout_steps": RESPONSE, "discount": 1.0, "minibatch_size": 8 * RESPONSE}


def batch_of(prompts: list[list[int]], responses: list[list[int]], padding: int = 0) -> Batch:
    """Rows padded on both sides."""
    before, behind = max(map(len, prompts)), max(map(len, responses))
    tokens = torch.full((len(prompts), before + behind), padding)
    valid = torch.zeros_like(tokens, dtype=torch.bool)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        whole = slice(before - len(prompt), before + len(response))
        tokens[row, whole], valid[row, whole] = torch.tensor(prompt + response), True
    return Batch(
        observations={"tokens": tokens, "valid": valid}, actions=tokens[:, before:], valid=valid[:, before:]
    )  # fmt: skip


PROMPT_IDS, RESPONSE_IDS = [[3, 5, 4, 2], [7], [2, 2, 9]], [[4, 1], [5, 6, 7, 3, 1], [8]]


def lstm_policy() -> TextPolicy:
    torch.manual_seed(0)
    config = AWDLSTMConfig(len(tokenizer()), width=8, hidden_width=12, layers=2)
    model = AWDLSTM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return TextPolicy(model, tokenizer=tokenizer())


def translating_policy() -> TextPolicy:
    torch.manual_seed(0)
    special = SpecialTokens(unknown="<unk>", begin="<begin>", end="<end>")
    letters = CharacterLevel.train(["abcdefgh "], CharacterLevelConfig(special=special))
    return TextPolicy(Transformer(TransformerConfig(len(letters), 24, 2, 2, 16)), tokenizer=letters)


POLICIES: dict[str, Callable[[], TextPolicy]] = {
    "gpt": policy, "gpt-pre": lambda: policy(norm="pre"), "lstm": lstm_policy, "transformer": translating_policy,
}  # fmt: skip


@pytest.mark.parametrize("rows_at_once", [7, 4096])
def test_chosen_tokens_have_the_softmaxes_values_and_gradients(rows_at_once: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*shape, generator=generator).requires_grad_() for shape in ((50, 8), (11, 8), (11,))]
    chosen = torch.randint(0, 11, (50,), generator=generator)
    of_log_prob, of_entropy = torch.randn(2, 50, generator=generator)

    found = chosen_tokens(*inputs, chosen, 0.7, rows_at_once)
    log_probs = (torch.nn.functional.linear(*inputs) / 0.7).log_softmax(-1)
    expected = log_probs.gather(1, chosen[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    for weights in ((of_log_prob, of_entropy), (of_log_prob, torch.zeros(50))):
        gradients = [
            torch.autograd.grad(
                sum((a * b).sum() for a, b in zip(pair, weights, strict=True)), inputs, retain_graph=True
            )
            for pair in (found, expected)
        ]
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_tokens_probability_is_that_of_the_logits_one_place_before_it_over_the_temperature(
    temperature: float,
) -> None:
    made = policy(temperature=temperature)
    batch = batch_of([[3, 5, 4]], [[6, 7, 1, 2]])
    with torch.no_grad():
        logits = made.text.module(batch.observations["tokens"])[:, 2:-1] / temperature
        expected = logits.log_softmax(-1).gather(-1, batch.actions[..., None])[..., 0]
        evaluation = made.evaluate(batch)
    assert evaluation.parameters is not None
    torch.testing.assert_close(evaluation.parameters, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evaluation.log_prob, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.reference.log_probs(batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", POLICIES)
def test_what_is_said_without_all_logits_is_what_is_said_with_them(kind: str) -> None:
    made, batch = POLICIES[kind](), batch_of(PROMPT_IDS, RESPONSE_IDS)
    with torch.no_grad():
        whole, lean = made.evaluate(batch), made.evaluate(batch, parameters=False)
    assert lean.parameters is None
    for ours, theirs in ((lean.log_prob, whole.log_prob), (lean.entropy, whole.entropy), (lean.value, whole.value)):
        torch.testing.assert_close(ours[batch.valid], theirs[batch.valid], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", POLICIES)
def test_padding_changes_nothing_whatever_stands_in_it(kind: str) -> None:
    made = POLICIES[kind]()
    together = batch_of(PROMPT_IDS, RESPONSE_IDS)
    spoilt = batch_of(PROMPT_IDS, RESPONSE_IDS, padding=6)
    with torch.no_grad():
        found, other = made.evaluate(together, parameters=False), made.evaluate(spoilt, parameters=False)
        torch.testing.assert_close(found.log_prob, other.log_prob, rtol=0, atol=1e-6)
        for row, (prompt, response) in enumerate(zip(PROMPT_IDS, RESPONSE_IDS, strict=True)):
            alone = made.evaluate(batch_of([prompt], [response]), parameters=False)
            there = together.valid[row]
            for ours, theirs in (
                (found.log_prob, alone.log_prob),
                (found.entropy, alone.entropy),
                (found.value, alone.value),
            ):
                torch.testing.assert_close(ours[row][there], theirs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", POLICIES)
def test_columns_that_no_row_has_may_be_there(kind: str) -> None:
    made, batch = POLICIES[kind](), batch_of(PROMPT_IDS, RESPONSE_IDS)
    wider = batch_of([[1] * 7, *PROMPT_IDS], [[1] * 8, *RESPONSE_IDS]).select(slice(1, None))
    assert wider.valid.shape == (3, 8)
    with torch.no_grad():
        narrow, wide = (made.evaluate(some, parameters=False) for some in (batch, wider))
        with_parameters = made.evaluate(wider)
    torch.testing.assert_close(wide.log_prob[:, :5], narrow.log_prob, rtol=1e-5, atol=1e-5)
    assert with_parameters.log_prob.shape == wide.value.shape == (3, 8)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("truncate_after", [0, 2])
def test_every_ratio_of_the_first_minibatch_is_one(temperature: float, truncate_after: int) -> None:
    made = policy(temperature=temperature)
    rollout = collector(64, temperature=temperature, truncate_after=truncate_after).collect(made)
    assert len({int(n) for n in rollout.observations["valid"][:, :-RESPONSE].sum(1)}) > 2
    zeros = torch.zeros_like(rollout.rewards)
    some = rollout.experience(zeros, zeros).select(torch.tensor([9, 3, 40, 17]))
    ratios = (made.evaluate(some, parameters=False).log_prob - some.log_probs).exp()[some.valid]
    torch.testing.assert_close(ratios, torch.ones_like(ratios), rtol=0, atol=1e-5)


def test_an_agents_first_loss_sees_ratios_of_one() -> None:
    made = policy(temperature=0.7)
    agent = PPO(made, PPOConfig(**{**COMMON, "minibatch_size": 32 * RESPONSE}, epochs=1))
    metrics = agent.update(collector(32, temperature=0.7).collect(made))
    assert metrics["clip_fraction"] == 0
    assert abs(metrics["approximate_kl"]) < 1e-8


def test_nothing_is_dropped_out_even_in_training_mode() -> None:
    made, batch = policy(), batch_of(PROMPT_IDS, RESPONSE_IDS)
    made.module.train()
    assert not made.text.module.training
    assert torch.equal(made.evaluate(batch).log_prob, made.evaluate(batch).log_prob)


@pytest.mark.parametrize("value_head", ["separate", "shared"])
def test_a_value_head_begins_at_zero(value_head: Any) -> None:
    made = TextPolicy(gpt(), TextPolicyConfig(value_head))
    assert not bool(made.values(batch_of(PROMPT_IDS, RESPONSE_IDS)).any())


@pytest.mark.parametrize("value_head", ["separate", "shared"])
def test_a_critic_fitted_alone_leaves_the_policy_where_it_was(value_head: Any) -> None:
    made, batch = policy(value_head), batch_of(PROMPT_IDS, RESPONSE_IDS)
    loss = batch.mean((made.value(batch) - 1).square())
    gradient = made.gradient(loss, made.flat)
    assert not bool(gradient[: made.actor_size].any())
    assert bool(gradient[made.actor_size :].any())


def test_a_shared_critic_moves_the_policys_features_when_both_learn() -> None:
    for value_head, moves in (("shared", True), ("separate", False)):
        made, batch = policy(value_head), batch_of(PROMPT_IDS, RESPONSE_IDS)  # type: ignore[arg-type]
        loss = batch.mean((made.evaluate(batch, parameters=False).value - 1).square())
        assert bool(made.gradient(loss, made.flat)[: made.actor_size].any()) is moves


def test_the_fisher_product_is_that_of_the_explicit_matrix() -> None:
    made = policy(layers=1, width=4, heads=1)
    batch = batch_of(PROMPT_IDS, RESPONSE_IDS)
    product = made.fisher(batch)

    rows = []
    with torch.enable_grad(), nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        logits = made.module(batch, critic=False)[0][batch.valid]
        for logit in logits.flatten():
            pieces = torch.autograd.grad(logit, made._actor, retain_graph=True)
            rows.append(torch.cat([piece.flatten() for piece in pieces]))
    jacobian = torch.stack(rows).view(*logits.shape, -1)
    p = logits.detach().softmax(-1)
    own = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    fisher = torch.einsum("svi,svw,swj->ij", jacobian, own, jacobian) / len(p)

    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        vector = torch.randn(made.actor_size, generator=generator)
        torch.testing.assert_close(product(vector), fisher @ vector, rtol=1e-3, atol=1e-5)


def test_trpo_steps_stay_in_the_trust_region_and_improve_the_surrogate() -> None:
    made, texts = TextPolicy(gpt(), tokenizer=tokenizer()), collector(32)
    agent = TRPO(made, TRPOConfig(**COMMON, max_kl=0.02, critic_epochs=2))
    accepted = 0
    for _ in range(5):
        metrics = agent.update(texts.collect(made))
        assert metrics["kl"] <= 0.02
        if not metrics["line_search_failed"]:
            accepted += 1
            assert metrics["surrogate_improvement"] > 0
            assert metrics["kl"] > 0.002
    assert accepted >= 4


@pytest.mark.parametrize("method", ["ppo", "trpo", "reinforce"])
def test_frozen_layers_are_shared_and_never_move(method: str) -> None:
    made = policy(frozen_layers=1)
    module, copies = made.text.module, [made.reference.text.module, made.module.critic]
    frozen = [module.tokens.weight, *module.blocks[0].parameters()]  # type: ignore[union-attr,index]
    free = list(module.blocks[1].parameters())  # type: ignore[index]
    assert made.actor_size == sum(p.numel() for p in free)
    for other in copies:
        assert other is not None
        assert other.tokens.weight is module.tokens.weight
        assert other.blocks[1].feed_forward.inward.weight is not free[0]  # type: ignore[union-attr,index]
    before = [p.detach().clone() for p in (*frozen, *free)]
    reference = [p.detach().clone() for p in copies[0].parameters()]  # type: ignore[union-attr]
    agent = {
        "ppo": lambda: PPO(made, PPOConfig(**COMMON)),
        "trpo": lambda: TRPO(made, TRPOConfig(**COMMON)),
        "reinforce": lambda: Reinforce(made, ReinforceConfig(**COMMON)),
    }[method]()
    agent.update(collector(16).collect(made))
    same = [torch.equal(a, b) for a, b in zip(before, (*frozen, *free), strict=True)]
    assert all(same[: len(frozen)])
    assert not any(same[len(frozen) :])
    assert all(torch.equal(a, b) for a, b in zip(reference, copies[0].parameters(), strict=True))  # type: ignore[union-attr]


def test_a_policy_is_saved_and_loaded_with_what_is_frozen() -> None:
    made, other = policy(frozen_layers=1), policy(frozen_layers=1, seed=1)
    batch = batch_of(PROMPT_IDS, RESPONSE_IDS)
    assert not torch.equal(made.evaluate(batch).log_prob, other.evaluate(batch).log_prob)
    other.load_state_dict(made.state_dict())
    ours, theirs = made.evaluate(batch), other.evaluate(batch)
    assert torch.equal(ours.log_prob, theirs.log_prob)
    assert torch.equal(ours.value, theirs.value)


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_other_models_respond_and_learn_by_the_same_agents(kind: str) -> None:
    made = POLICIES[kind]()
    texts = collector(16)
    if kind == "transformer":
        texts.tokenizer = made._tokenizer  # type: ignore[assignment]
        texts.order.rows = [made.text.prompt(texts.tokenizer.ids(prompt)) for prompt in PROMPTS]
    rollout: Rollout = texts.collect(made)
    zeros = torch.zeros_like(rollout.rewards)
    found = made.evaluate(rollout.experience(zeros, zeros), parameters=False).log_prob
    torch.testing.assert_close(found[rollout.valid], rollout.log_probs[rollout.valid], rtol=0, atol=1e-5)
    before = made.flat.detach().clone()
    metrics = PPO(made, PPOConfig(**COMMON, epochs=1)).update(rollout)
    assert metrics["gradient_norm"] > 0
    assert not torch.equal(before, made.flat)
    metrics = TRPO(made, TRPOConfig(**COMMON)).update(texts.collect(made))
    assert 0 < metrics["kl"] <= 0.01


def test_the_penalty_form_of_ppo_has_the_exact_divergence() -> None:
    made = policy()
    rollout = collector(16).collect(made)
    metrics = PPO(made, PPOConfig(**COMMON, objective="kl_penalty", epochs=2)).update(rollout)
    assert metrics["kl"] > 0


def test_what_cannot_be_a_policy_is_refused_in_a_sentence() -> None:
    small = BERTConfig(vocabulary_size=11, context=8, layers=1, heads=1, width=8)
    cases: list[tuple[str, Callable[[], Any]]] = [
        ("above 0", lambda: TextPolicy(gpt(), temperature=0.0)),
        ("has 2 layers", lambda: TextPolicy(gpt(), TextPolicyConfig(frozen_layers=3))),
        ("nothing is left to learn", lambda: TextPolicy(gpt(), TextPolicyConfig(frozen_layers=2))),
        ("BERT cannot be fine-tuned", lambda: TextPolicy(BERT(small))),
        ("writes none", lambda: TextPolicy(AWDLSTM(AWDLSTMConfig(11, width=8, hidden_width=8, backward=True)))),
        ("value_head", lambda: TextPolicyConfig(value_head="none at all")),  # type: ignore[arg-type]
    ]
    for words, make in cases:
        with pytest.raises(RllabError, match=words):
            make()


def gradient_of(made: TextPolicy, batch: Batch, entropy: float) -> Tensor:
    evaluation = made.evaluate(batch, parameters=False)
    return made.gradient(batch.mean(evaluation.log_prob + entropy * evaluation.entropy), made.flat).clone()


def test_an_entropy_bonus_has_the_gradient_of_the_whole_softmax() -> None:
    made, batch = policy("none"), batch_of(PROMPT_IDS, RESPONSE_IDS)
    lean = gradient_of(made, batch, 0.5)
    evaluation = made.evaluate(batch)
    whole = made.gradient(batch.mean(evaluation.log_prob + 0.5 * evaluation.entropy), made.flat)
    torch.testing.assert_close(lean, whole, rtol=1e-3, atol=1e-6)
