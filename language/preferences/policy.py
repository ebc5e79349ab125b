"""A language model as a policy: responses are rows, and their tokens actions (Ziegler et al. 2019, section 2).

A value head on the model's own features or on those of a copy (Stiennon et al. 2020, appendix B.1) is the critic; it
begins at 0. Policy, critic and reference never drop anything out: a dropped-out ratio would not be 1 at the old policy.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.causal_lm import CausalLM
from language.preferences.chosen import chosen_tokens
from language.preferences.text_models import TextModel, text_model
from language.tokenizers.tokenizer import Tokenizer
from rllab.policies.distributions import Categorical
from rllab.policies.policy import Evaluation, Policy
from rllab.rollout import Batch

ValueHead: TypeAlias = Literal["separate", "shared", "none"]
"""On a copy of the model with weights of its own, on the policy's own features, or not at all."""
TOKENS_AT_ONCE = 16_384
"""Tokens, prompts and padding included, of a pass that needs no gradient."""


@dataclass(frozen=True)
class TextPolicyConfig:
    """What a language model gets to be a policy."""

    value_head: ValueHead = "separate"
    """The critic: a head on a copy of the model (Stiennon et al. 2020), on the policy's own features (Ziegler et al.
    2019), or none, for baselines that need none."""
    frozen_layers: int = 0
    """Embeddings and so many layers from below stay as they are, shared with the reference and the critic's copy; 0:
    nothing is frozen. An output that is tied to the embeddings stays with them."""

    def __post_init__(self) -> None:
        if self.value_head not in ("separate", "shared", "none"):
            raise RllabError(f"value_head must be separate, shared or none, not '{self.value_head}'.")
        if self.frozen_layers < 0:
            raise RllabError(f"frozen_layers must be 0 (nothing is frozen) or more, not {self.frozen_layers}.")


class _Piece(NamedTuple):
    """A batch without the columns in which no row has a token."""

    tokens: Tensor
    valid: Tensor
    prompt: int
    """P, columns of prompts."""
    kept: int
    """T, columns of responses; those behind are padding."""

    @classmethod
    def of(cls, batch: Batch) -> "_Piece":
        tokens, valid = batch.observations["tokens"], batch.observations["valid"]
        columns = batch.valid.shape[1]
        prompt = tokens.shape[1] - columns
        before = int(valid[:, :prompt].any(0).int().argmax())
        kept = max(1, int(batch.valid.any(0).sum()))
        end = tokens.shape[1] - (columns - kept)
        return cls(tokens[:, before:end], valid[:, before:end], prompt - before, kept)


class TextActorCritic(nn.Module):
    """The model, and the critic beside it."""

    def __init__(self, model: TextModel, critic: TextModel | None, value: nn.Linear | None, temperature: float) -> None:
        super().__init__()
        self.model = model.module
        self.critic = None if critic is None else critic.module
        self.value = value
        self.temperature = temperature
        # Not attributes that torch would register a second time.
        self._models = (model, critic)
        self.train(False)

    def train(self, mode: bool = True) -> "TextActorCritic":
        """There is no training mode: nothing is dropped out."""
        super().train(False)
        return self

    def features(self, piece: _Piece) -> Tensor:
        """The policy's, `[N, kept, width]`."""
        return self._models[0].features(piece.tokens, piece.valid, piece.prompt)

    def values(self, piece: _Piece, features: Tensor | None, columns: int) -> Tensor:
        """Of the texts before each token, `[N, T]`; 0 in columns that no row has."""
        if self.value is None:
            return torch.zeros(len(piece.tokens), columns, device=piece.tokens.device)
        if (critic := self._models[1]) is not None:
            features = critic.features(piece.tokens, piece.valid, piece.prompt)
        assert features is not None
        return nn.functional.pad(self.value(features)[..., 0].float(), (0, columns - piece.kept))

    def forward(self, batch: Batch, actor: bool = True, critic: bool = True) -> tuple[Tensor | None, Tensor | None]:
        """Logits over the temperature `[N, T, V]` and values `[N, T]`; see `Policy`."""
        piece, columns = _Piece.of(batch), batch.valid.shape[1]
        features = None
        if actor or self._models[1] is None:
            # A critic fitted alone must not move the features that the policy stands on.
            with torch.set_grad_enabled(actor and torch.is_grad_enabled()):
                features = self.features(piece)
        logits = None
        if actor and features is not None:
            weight, bias = self._models[0].output()
            logits = nn.functional.linear(features, weight, bias).float() / self.temperature
            logits = nn.functional.pad(logits, (0, 0, 0, columns - piece.kept))
        return logits, self.values(piece, features, columns) if critic else None


class TextPolicy(Policy):
    """Whole responses in one pass. Observations are `{"tokens": int64 [N, P + T], "valid": bool [N, P + T]}`, prompts
    padded on the left and responses on the right; actions are the responses' tokens, int64 `[N, T]`."""

    rows = True

    def __init__(
        self,
        model: nn.Module,
        config: TextPolicyConfig | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make a policy of a model, whose weights it takes over and trains.

        Args:
            model: a trained language model; see `text_model`.
            config: its critic, and what is frozen.
            tokenizer: of the model; needed by those with an encoder.
            temperature: what logits are divided by, in sampling and everywhere else.
            device: where it learns.

        Raises:
            RllabError: the model writes no text, has fewer layers than are to be frozen or nothing else to learn, or
                the temperature is not above 0.
        """
        if not temperature > 0:
            raise RllabError(f"The temperature of a policy must be above 0, not {temperature}.")
        self.config, self.temperature = config or TextPolicyConfig(), temperature
        self.text = text_model(model.to(device), tokenizer)
        frozen = self.text.lower(self.config.frozen_layers) if self.config.frozen_layers else []
        for parameter in frozen:
            parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise RllabError(f"With frozen_layers {self.config.frozen_layers} nothing is left to learn; freeze fewer.")
        self._tokenizer = tokenizer
        # Copied before the weights are laid into the flat buffer; frozen ones are the same tensors in all copies.
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        self.reference = Reference(self._copy(frozen, adapters=False), temperature)
        critic = self._copy(frozen) if self.config.value_head == "separate" else None
        value = None if self.config.value_head == "none" else nn.Linear(self.text.width, 1, device=device)
        if value is not None:
            nn.init.zeros_(value.weight)
            nn.init.zeros_(value.bias)
        module = TextActorCritic(self.text, critic, value, temperature)
        own = [] if critic is None else [p for p in critic.module.parameters() if p.requires_grad]
        super().__init__(module, [*own, *([] if value is None else value.parameters())], device)
        self.module: TextActorCritic

    def _copy(self, shared: Sequence[nn.Parameter], adapters: bool = True) -> TextModel:
        """A copy of the model in which these parameters are the same tensors; if asked for, without new adapters."""
        module = copy.deepcopy(self.text.module, {id(parameter): parameter for parameter in shared})
        if isinstance(module, CausalLM) and not adapters:
            module = module.unadapted()
        return text_model(module, self._tokenizer)

    def distribution(self, parameters: Tensor, action_mask: Tensor | None = None) -> Categorical:
        """The next token's, from logits `[..., V]` that are divided by the temperature already."""
        return Categorical(parameters, action_mask)

    def evaluate(self, batch: Batch, *, parameters: bool = True) -> Evaluation:
        """See `Policy`. Without `parameters`, logits are held for some thousand tokens at a time only."""
        if parameters or batch.action_mask is not None:
            return super().evaluate(batch)
        piece = _Piece.of(batch)
        features = self.module.features(piece)
        log_prob, entropy = _of_actions(self.text, features, batch, self.temperature)
        return Evaluation(log_prob, entropy, self.module.values(piece, features, batch.valid.shape[1]), None)

    @torch.no_grad()
    def values(self, batch: Batch) -> Tensor:
        """The critic's values `[N, T]`, some rows at a time, without gradients."""
        if self.module.value is None:
            return torch.zeros(batch.valid.shape, device=batch.valid.device)
        return torch.cat([self.value(rows) for rows in _some_rows(batch)])


class Reference:
    """The model as it was, which the policy is kept near to."""

    def __init__(self, model: TextModel, temperature: float) -> None:
        self.text, self.temperature = model, temperature
        model.module.eval()

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """Log-probabilities of the batch's actions `[N, T]`, at the policy's temperature; 0 where none exists."""
        found = []
        for rows in _some_rows(batch):
            piece = _Piece.of(rows)
            features = self.text.features(piece.tokens, piece.valid, piece.prompt)
            found.append(_of_actions(self.text, features, rows, self.temperature)[0])
        return torch.cat(found)


def _some_rows(batch: Batch) -> list[Batch]:
    """The batch in parts of about `TOKENS_AT_ONCE` tokens."""
    rows = max(1, TOKENS_AT_ONCE // batch.observations["tokens"].shape[1])
    return [batch.select(slice(start, start + rows)) for start in range(0, len(batch.valid), rows)]


def _of_actions(model: TextModel, features: Tensor, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a batch's actions and the entropies `[N, T]`, both 0 where no action exists."""
    kept = features.shape[1]
    there = batch.valid[:, :kept].flatten().nonzero()[:, 0]
    chosen = batch.actions[:, :kept].flatten()[there]
    found = chosen_tokens(features.flatten(0, 1).index_select(0, there), *model.output(), chosen, temperature)
    zeros, missing = torch.zeros(batch.valid[:, :kept].numel(), device=features.device), batch.valid.shape[1] - kept
    log_prob, entropy = (
        nn.functional.pad(zeros.index_put((there,), part).view(-1, kept), (0, missing)) for part in found
    )
    return log_prob, entropy
