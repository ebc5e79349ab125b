"""Returns and advantages: generalised advantage estimation (Schulman et al. 2016) and rewards-to-go.

Everything is `[N, T]` (rows are trajectories, columns time). An episode's end is told by two flags that are
never merged: a *terminated* step has no future value, a *truncated* one bootstraps from the value of its
true final observation, which the collector has put in `next_values`.
"""

from torch import Tensor


def discounted_sum(terms: Tensor, factors: Tensor) -> Tensor:
    """Solve `x[:, t] = terms[:, t] + factors[:, t] · x[:, t + 1]`, with nothing after the last column.

    A doubling scan: log2(T) vector operations in place of T small ones (for one environment and 2,048
    steps that is 11 instead of 2,048), each pass folding in twice as many future columns.
    """
    total, factor = terms.clone(), factors.clone()
    steps, shift = terms.shape[1], 1
    while shift < steps:
        # The right-hand side is evaluated in full before it is added, so no pass reads its own results.
        total[:, :-shift] += factor[:, :-shift] * total[:, shift:]
        factor[:, :-shift] = factor[:, :-shift] * factor[:, shift:]
        factor[:, -shift:] = 0
        shift *= 2
    return total


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor,
    *,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimates `[N, T]` (Schulman et al. 2016, equation 16).

    `δ_t = r_t + γ·V(s'_t)·(1 − terminated_t) − V(s_t)`; the λ-trace is cut where an episode ends for either
    reason and at columns that do not exist (`valid` False), whose advantage is 0.
    """
    delta = rewards + discount * next_values * ~terminated - values
    trace = discount * gae_lambda * (~(terminated | truncated) & valid)
    return discounted_sum(delta * valid, trace)


def rewards_to_go(
    rewards: Tensor, terminated: Tensor, truncated: Tensor, valid: Tensor, *, discount: float
) -> tuple[Tensor, Tensor]:
    """Monte Carlo returns without a value function, and which of them are complete.

    A time limit counts as an episode's end here, since there is no value to bootstrap from. The second
    result `[N, T]` (bool) is False for the steps of an episode that the rollout's last column cuts.
    """
    done = terminated | truncated
    returns = discounted_sum(rewards * valid, discount * (~done & valid))
    ends_later = (done & valid).flip(1).cummax(1).values.flip(1)
    return returns, ends_later & valid
