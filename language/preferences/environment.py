"""The same task as a Gymnasium environment: one token a step, the score at the end.

Any Gymnasium agent can step through it. What the fine-tuning proper has besides is what only a language model can give:
a divergence from a reference, and features of its own.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.errors import RllabError
from language.decoding.text import TextStream
from language.preferences.rewards import TextReward, score
from language.tokenizers.tokenizer import Tokenizer

Observation = dict[str, NDArray[Any]]


class TextEnv(gymnasium.Env[Observation, np.int64]):
    """Writes a response to a prompt.

    Observations are `tokens` int64 `[P + T]`, the prompt padded on the left and the response on the right, and `valid`
    int8 `[P + T]`, 1 where a token is. An action is the next token's id. An episode ends with a stop token, or after T
    tokens; the reward is 0 until then, and then the score of the text.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        reward: TextReward,
        tokenizer: Tokenizer,
        *,
        maximum_new_tokens: int = 24,
        stop_tokens: Sequence[int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Make the environment.

        Args:
            prompts: ids of each, of which an episode draws one.
            reward: scores prompts and responses.
            tokenizer: whose tokens the actions are.
            maximum_new_tokens: T.
            stop_tokens: ids that end a response; by default the tokenizer's end token.
            render_mode: `ansi` shows the text so far.

        Raises:
            RllabError: there is no prompt, one is empty, or T is below 1.
        """
        if not prompts or not all(map(len, prompts)):
            raise RllabError("A text environment needs prompts with at least one token each.")
        if maximum_new_tokens < 1:
            raise RllabError(f"maximum_new_tokens must be at least 1, not {maximum_new_tokens}.")
        self.prompts = [list(prompt) for prompt in prompts]
        self.reward, self.tokenizer, self.columns = reward, tokenizer, maximum_new_tokens
        end = tokenizer.special.end
        own = () if end is None else (tokenizer.vocabulary[end],)
        self.stop_tokens = frozenset(own if stop_tokens is None else stop_tokens)
        self.longest = max(map(len, self.prompts))
        self.render_mode = render_mode
        width = self.longest + maximum_new_tokens
        parts: dict[str, gymnasium.Space[Any]] = {
            "tokens": spaces.Box(0, len(tokenizer) - 1, (width,), np.int64), "valid": spaces.MultiBinary(width),
        }  # fmt: skip
        self.observation_space: gymnasium.Space[Any] = spaces.Dict(parts)
        self.action_space = spaces.Discrete(len(tokenizer))
        self._prompt: list[int] = []
        self._response: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a response to a random prompt."""
        super().reset(seed=seed)
        self._prompt = self.prompts[int(self.np_random.integers(len(self.prompts)))]
        self._response = []
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Append a token."""
        self._response.append(int(action))
        stopped = self._response[-1] in self.stop_tokens
        over = stopped or len(self._response) == self.columns
        if not over:
            return self._observation(), 0.0, False, False, {}
        prompt, text = self.tokenizer.decode(self._prompt), self._text()
        worth = float(score(self.reward, [prompt], [text])[0])
        return self._observation(), worth, True, False, {"prompt": prompt, "response": text, "stopped": stopped}

    def render(self) -> Any:
        """Prompt and response so far."""
        return self.tokenizer.decode(self._prompt) + self._text() if self.render_mode == "ansi" else None

    def _text(self) -> str:
        stream = TextStream(self.tokenizer, self._prompt)
        return stream.push(*(token for token in self._response if token not in self.stop_tokens)) + stream.finish()

    def _observation(self) -> Observation:
        tokens = np.zeros(self.longest + self.columns, np.int64)
        valid = np.zeros(self.longest + self.columns, np.int8)
        whole = slice(self.longest - len(self._prompt), self.longest + len(self._response))
        tokens[whole], valid[whole] = [*self._prompt, *self._response], 1
        return {"tokens": tokens, "valid": valid}
