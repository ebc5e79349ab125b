"""The worked examples of the seed document's reinforcement-learning part, each by this project's own code.

Where an example errs, the right value is asserted; docs/seed-errata.md says why.
"""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from synthetic import make_policy, make_rollout

from rllab.agents import PPO, PPOConfig, Reinforce, ReinforceConfig
from rllab.agents.trpo import conjugate_gradients
from rllab.policies import ActorCritic, PolicyConfig
from rllab.returns import rewards_to_go
from rllab.rollout import Experience, Rollout

ONE = spaces.Box(1, 1, (1,), np.float32)


def two_actions(**config: Any) -> ActorCritic:
    """Two logits, both 0, that no observation changes."""
    policy = ActorCritic(ONE, spaces.Discrete(2), PolicyConfig(hidden_sizes=(), **config))
    with torch.no_grad():
        policy.flat.zero_()
    return policy


def episodes(policy: ActorCritic, actions: list[int], rewards: list[float]) -> Rollout:
    """Episodes of one step each."""
    rows = len(actions)
    chosen, paid = torch.tensor(actions).unsqueeze(1), torch.tensor(rewards).unsqueeze(1)
    yes, zeros = torch.ones(rows, 1, dtype=torch.bool), torch.zeros(rows, 1)
    rollout = Rollout(
        observations=torch.ones(rows, 1, 1), actions=chosen, rewards=paid, terminated=yes, truncated=~yes, valid=yes,
        log_probs=zeros, values=zeros, next_values=zeros, environment_rewards=paid,
    )  # fmt: skip
    with torch.no_grad():
        evaluation = policy.evaluate(rollout.experience(zeros, zeros))
    return rollout.replace(log_probs=evaluation.log_prob)


def logit_gradient(rewards: list[float], baseline: Any) -> list[float]:
    """What REINFORCE sees for trajectory A (action 0) and B (action 1) with these returns."""
    policy = two_actions()
    config = ReinforceConfig(baseline=baseline, normalise_advantages=False, max_grad_norm=0)
    Reinforce(policy, config).update(episodes(policy, [0, 1], rewards))
    gradient = policy.module.actor[0].bias.grad
    assert gradient is not None
    return (-gradient).tolist()


P, Q = torch.tensor([0.5, 0.5]), torch.tensor([0.8, 0.2])
VALUES = torch.tensor([1.0, 3.0])


def test_importance_sampling_the_four_samples_give_2_34375_and_the_expectation_2() -> None:
    samples = torch.tensor([0, 0, 0, 1])  # x = 1, 1, 1, 3
    weights = P / Q
    torch.testing.assert_close(weights, torch.tensor([0.625, 2.5]))
    zeros = torch.zeros(4)
    batch = Experience(
        observations=zeros, actions=samples, valid=torch.ones(4, dtype=torch.bool), values=zeros, returns=zeros,
        log_probs=Q.log()[samples], advantages=VALUES[samples],
    )  # fmt: skip
    ratio = (P.log()[samples] - batch.log_probs).exp()
    assert float(batch.mean(ratio * batch.advantages)) == pytest.approx(2.34375)
    assert float((Q * weights * VALUES).sum()) == pytest.approx(2.0)  # on average over samples from q
    assert float((P * VALUES).sum()) == 2.0


@pytest.mark.parametrize("rewards", [[10.0, -10.0], [10.0, 1.0]])
def test_advantages_of_two_trajectories_are_their_distances_from_the_mean(rewards: list[float]) -> None:
    mean = sum(rewards) / 2
    advantages = [reward - mean for reward in rewards]
    assert advantages in ([10.0, -10.0], [4.5, -4.5])
    # ∂ log π(a) / ∂ logits = onehot(a) − ½, averaged over both trajectories.
    expected = [0.25 * (advantages[0] - advantages[1]), 0.25 * (advantages[1] - advantages[0])]
    assert logit_gradient(rewards, "mean") == pytest.approx(expected)
    assert expected[0] > 0 > expected[1]  # A more likely, B less


def test_even_without_a_baseline_not_every_rewarded_trajectory_becomes_more_likely() -> None:
    gradient = logit_gradient([10.0, 1.0], "none")
    assert gradient == pytest.approx([2.25, -2.25])


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [(0.5, 2.0, 1.0, 2.0), (1.5, 2.0, 2.4, 0.0), (0.5, -2.0, -1.6, 0.0), (1.5, -2.0, -3.0, -2.0)],
)
def test_the_four_clip_cases_and_how_each_pulls_on_the_ratio(
    ratio: float, advantage: float, objective: float, slope: float
) -> None:
    policy = two_actions()
    rollout = episodes(policy, [0], [advantage])
    rollout = rollout.replace(log_probs=rollout.log_probs - float(np.log(ratio)))
    config = PPOConfig(minibatch_size=1, epochs=1, normalise_advantages="none", value_coefficient=0, max_grad_norm=0)
    metrics = PPO(policy, config).update(rollout)
    assert -metrics["policy_loss"] == pytest.approx(objective)
    gradient = policy.module.actor[0].bias.grad
    assert gradient is not None
    # d ratio / d logit = ratio · (1 − π) with π = ½: slope 0 where clipping binds, so no "further reduction".
    assert -float(gradient[0]) == pytest.approx(slope * ratio * 0.5)


def test_clipping_bounds_each_update_but_not_the_way_from_where_training_began() -> None:
    policy = two_actions()
    agent = PPO(policy, PPOConfig(minibatch_size=2, normalise_advantages="none", learning_rate=0.02))
    first = float(episodes(policy, [0], [0.0]).log_probs)
    for _ in range(60):
        agent.update(episodes(policy, [0, 0], [1.0, 1.0]))
    ratio = np.exp(float(episodes(policy, [0], [0.0]).log_probs) - first)
    assert ratio > 1.6  # of at most 2; the clip range is 0.2


def test_the_adaptive_penalty_doubles_above_one_and_a_half_targets_and_halves_below_two_thirds() -> None:
    for target, factor in ((1e-6, 2.0), (1e6, 0.5)):
        policy = make_policy()
        agent = PPO(policy, PPOConfig(objective="kl_penalty", kl_penalty_target=target, minibatch_size=32))
        before = agent.kl_coefficient
        agent.update(make_rollout(policy, 4, 8))
        assert agent.kl_coefficient == factor * before


def test_conjugate_gradients_need_at_most_as_many_steps_as_there_are_parameters() -> None:
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    target = torch.tensor([1.0, 2.0], dtype=torch.float64)
    one_step, _ = conjugate_gradients(lambda v: matrix @ v, target, 1)
    two_steps, _ = conjugate_gradients(lambda v: matrix @ v, target, 2)
    exact = torch.tensor([1 / 11, 7 / 11], dtype=torch.float64)
    torch.testing.assert_close(two_steps, exact)
    assert not torch.allclose(one_step, exact)


def test_the_natural_gradient_step_reaches_the_edge_of_the_trust_region() -> None:
    fisher = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    gradient, delta = torch.tensor([1.0, -1.0], dtype=torch.float64), 0.01
    direction, _ = conjugate_gradients(lambda v: fisher @ v, gradient, 2)
    step = (2 * delta / (gradient @ direction)).sqrt() * direction
    assert float(0.5 * step @ fisher @ step) == pytest.approx(delta)
    # No other step on that edge gains more in the linear model.
    for angle in np.linspace(0, 2 * np.pi, 100):
        other = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float64)
        other *= (2 * delta / (other @ fisher @ other)).sqrt()
        assert gradient @ other <= gradient @ step + 1e-12


@pytest.mark.parametrize(("discount", "returns"), [(0.0, [1, 2, 4]), (1.0, [7, 6, 4]), (0.5, [3, 4, 4])])
def test_discounting_from_only_now_to_all_alike(discount: float, returns: list[float]) -> None:
    ends = torch.tensor([[False, False, True]])
    computed, _ = rewards_to_go(
        torch.tensor([[1.0, 2.0, 4.0]]), ends, ~ends & ends, torch.ones_like(ends), discount=discount
    )  # fmt: skip
    assert computed.tolist() == [returns]


# What the erratum on "TRPO never moves backwards" states, in a process small enough to solve.

DISCOUNT = 0.9
MOVES = np.array([[0, 1], [1, 1]])
"""Where each action leads: in state 0, action 0 stays and action 1 leaves for state 1, which nothing leaves."""
PAYS = np.array([[0.0, 1.0], [2.0, 0.0]])


def solved(policy: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The return from state 0, the advantages, and the discounted number of visits to each state."""
    transitions = np.zeros((2, 2))
    for state in range(2):
        for action in range(2):
            transitions[state, MOVES[state, action]] += policy[state, action]
    resolvent = np.linalg.inv(np.eye(2) - DISCOUNT * transitions)
    values = resolvent @ (policy * PAYS).sum(1)
    advantages = PAYS + DISCOUNT * values[MOVES] - values[:, None]
    return float(values[0]), advantages, resolvent[0]


def surrogate(old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """The seed's ℒ: advantages under the new policy in the states that the old one visits."""
    _, advantages, visits = solved(old)
    return float((visits[:, None] * new * advantages).sum())


UNIFORM = np.full((2, 2), 0.5)


def test_a_surrogate_above_zero_does_not_promise_a_better_policy() -> None:
    new = np.array([[0.9, 0.1], [0.7, 0.3]])
    assert surrogate(UNIFORM, UNIFORM) == pytest.approx(0)
    assert surrogate(UNIFORM, new) == pytest.approx(1.9504, abs=1e-4)
    assert solved(UNIFORM)[0] == pytest.approx(9.0909, abs=1e-4)
    assert solved(new)[0] == pytest.approx(7.1579, abs=1e-4)


def test_nor_does_it_within_a_small_trust_region() -> None:
    worst = 0.0
    for p in np.linspace(0.44, 0.56, 61):
        for q in np.linspace(0.44, 0.56, 61):
            new = np.array([[p, 1 - p], [q, 1 - q]])
            divergence = (UNIFORM * np.log(UNIFORM / new)).sum(1).max()
            if divergence <= 0.01 and surrogate(UNIFORM, new) >= 0:
                worst = min(worst, solved(new)[0] - solved(UNIFORM)[0])
    assert worst < -0.01


def test_the_bound_of_trpos_theorem_1_holds_where_the_surrogate_alone_fails() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        new = np.stack([[p, 1 - p] for p in generator.uniform(0.05, 0.95, 2)])
        old_return, advantages, _ = solved(UNIFORM)
        divergence = (UNIFORM * np.log(UNIFORM / new)).sum(1).max()
        penalty = 4 * np.abs(advantages).max() * DISCOUNT / (1 - DISCOUNT) ** 2 * divergence
        assert solved(new)[0] - old_return >= surrogate(UNIFORM, new) - penalty - 1e-9


def test_a_penalty_by_the_root_of_the_divergence_can_forbid_every_step_and_a_constraint_cannot() -> None:
    gradient, fisher, coefficient = 1.0, 1.0, 2.0
    steps = np.linspace(-1, 1, 2001)
    divergence = 0.5 * fisher * steps**2
    penalised = gradient * steps - coefficient * np.sqrt(divergence)
    assert steps[penalised.argmax()] == pytest.approx(0, abs=1e-9)  # the kink at 0 holds: |g| < C·√(F / 2)
    inside = divergence <= 0.01
    assert steps[inside][(gradient * steps[inside]).argmax()] == pytest.approx((2 * 0.01 / fisher) ** 0.5, abs=1e-3)


def test_a_deviation_that_is_learned_is_no_constant_of_the_log_probability() -> None:
    policy = ActorCritic(ONE, spaces.Box(-1, 1, (1,)), PolicyConfig(hidden_sizes=()))
    observations, action = torch.ones(1, 1), torch.tensor([[2.0]])
    batch = Experience(
        observations=observations, actions=action, valid=torch.ones(1, dtype=torch.bool),
        log_probs=torch.zeros(1), values=torch.zeros(1), advantages=torch.zeros(1), returns=torch.zeros(1),
    )  # fmt: skip
    policy.gradient(policy.evaluate(batch).log_prob.sum(), policy.flat)
    assert policy.module.log_std is not None
    assert policy.module.log_std.grad is not None
    mean = float(policy.module.actor(observations).detach())
    assert float(policy.module.log_std.grad) == pytest.approx((2.0 - mean) ** 2 - 1, rel=1e-4)


def test_dropping_the_discount_of_the_step_leaves_no_gradient_of_the_discounted_return() -> None:
    """Two steps that share one logit: the first pays 0 for action 0, 0 for 1; the second 1 for action 0."""
    logit = torch.zeros(1, requires_grad=True)
    probability = torch.sigmoid(logit)

    # J = γ·π: the reward comes at the second step. Its gradient is γ·π(1 − π) = 0.9 / 4.
    (exact,) = torch.autograd.grad(0.9 * probability, logit)
    assert float(exact) == pytest.approx(0.225)

    def score(action: int) -> float:
        return 1 - 0.5 if action == 0 else -0.5

    # E over both steps' actions of Σ_t ∇log π(a_t) · Σ_{t' ≥ t} γ^{t' − t} r_{t'}, as the seed writes it.
    estimate = sum(
        0.25 * (score(first) * 0.9 * (second == 0) + score(second) * (second == 0))
        for first in range(2) for second in range(2)
    )  # fmt: skip
    assert estimate == pytest.approx(0.25)
