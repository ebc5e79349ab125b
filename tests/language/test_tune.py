"""Runs of fine-tuning from rewards: what they leave, that they go on exactly, learn, and stop with a sentence."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import PROMPTS, RESPONSE, collector, gpt, policy, share_of_a, tokenizer, write_model_and_prompts

from envs.errors import RllabError
from language.cli.tune import command
from language.models.folder import load_model, save_model
from language.preferences.collect import KLRunawayError, RewardConfig
from language.preferences.policy import TextPolicy, TextPolicyConfig
from language.preferences.prompts import PromptsConfig, read_prompts
from language.preferences.responses import ResponsesConfig
from language.preferences.text_evaluation import FILE, _line, read_evaluations
from language.preferences.text_models import text_model
from language.preferences.tune import TuneWorkshop, resume, tune
from language.preferences.tuning_config import DEFAULTS, BatchConfig, TuneConfig, TuneLoopConfig
from language.tokenizers import CharacterLevel, CharacterLevelConfig
from language.tokenizers.special import SpecialTokens
from rllab.agents import AGENTS, PPOConfig, ReinforceConfig, TRPOConfig
from rllab.callbacks import Callback
from rllab.loop_config import LoopConfig
from rllab.runs import Run
from rllab.train import Training

REWARD = "python:tiny_texts:share_of_a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, and prompts."""
    return write_model_and_prompts(tmp_path_factory.mktemp("tune"))


def config_of(folder: Path, agent: str = "ppo", steps: int = 600, **changes: Any) -> TuneConfig:
    parts: dict[str, Any] = {
        "prompts": PromptsConfig(str(folder / "prompts.txt"), prompt_tokens=0, evaluation_prompts=4),
        "drawing": ResponsesConfig(RESPONSE),
        "rewarding": RewardConfig(beta=0.01),
        "batch": BatchConfig(16, 8),
        "loop": TuneLoopConfig(steps, evaluation_every=200, checkpoint_every=100, tensorboard=False),
    }
    return TuneConfig(DEFAULTS[agent], str(folder / "model"), (REWARD,), **{**parts, **changes})


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        str(folder / "model"), "--reward", REWARD, "--prompts", str(folder / "prompts.txt"), "--prompt-tokens", "0",
        "--maximum-new-tokens", str(RESPONSE), "--responses", "8", "--minibatch-responses", "4", "--steps", "150",
        "--evaluation-every", "100", "--no-tensorboard", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
def test_every_agent_teaches_a_model_to_write_a_letter(agent: str) -> None:
    made, texts = TextPolicy(gpt(), TextPolicyConfig("separate"), tokenizer=tokenizer()), collector(32, beta=0.01)
    sizes: dict[str, Any] = {
        "rollout_steps": RESPONSE, "discount": 1.0, "gae_lambda": 0.95, "minibatch_size": 16 * RESPONSE
    }  # fmt: skip
    config: Any = {
        "ppo": PPOConfig(**sizes, learning_rate=3e-3),
        "trpo": TRPOConfig(**sizes, max_kl=0.03, critic_epochs=3),
        "reinforce": ReinforceConfig(**sizes, learning_rate=5e-3, critic_epochs=3),
    }[agent]
    scores, divergences = [], []

    class Watch(Callback):
        def after_update(self, training: Any, rollout: Any, metrics: dict[str, float]) -> None:
            scores.append(metrics["return_mean"])
            divergences.append(metrics.get("kl", 0.0))

    Training(
        texts, made, AGENTS[agent](made, config), LoopConfig(4_500, evaluation_every=0), callbacks=[Watch()], quiet=True
    ).run()
    assert sum(scores[:2]) / 2 < 0.2
    assert sum(scores[-2:]) / 2 > 0.6
    assert max(divergences) <= 0.03


def test_defaults_are_the_papers_numbers() -> None:
    ppo = DEFAULTS["ppo"]
    assert isinstance(ppo, PPOConfig)
    assert (ppo.clip_range, ppo.value_clip_range, ppo.value_coefficient, ppo.epochs) == (0.2, 0.2, 0.1, 4)
    assert {(agent.discount, agent.gae_lambda) for agent in DEFAULTS.values()} == {(1.0, 0.95)}
    rewarding, drawing = RewardConfig(), ResponsesConfig()
    assert (rewarding.beta, rewarding.kl_estimator, rewarding.kl_horizon) == (0.05, "k1", 10_000)
    assert (drawing.maximum_new_tokens, drawing.temperature) == (24, 1.0)


def test_a_run_has_metrics_evaluations_and_models(folder: Path, tmp_path: Path) -> None:
    run = tune(config_of(folder), tmp_path / "run", quiet=True)
    assert run.steps >= 600
    rows = Run.open(run.path).read_metrics()
    wanted = {
        "kl_response",
        "beta",
        "entropy",
        "reward_minus_kl",
        "share_without_stop",
        "approximate_kl",
        "clip_fraction",
        "return_mean",
        "length_mean",
        "explained_variance",
    }
    assert wanted <= set(rows[0])
    evaluations = read_evaluations(run.path)
    assert [row["steps"] for row in evaluations] == sorted({row["steps"] for row in evaluations})
    assert evaluations[-1]["steps"] == run.steps
    assert evaluations[0]["steps"] == 0
    assert evaluations[0]["kl_response"] == pytest.approx(0, abs=1e-5)
    assert evaluations[-1]["score"] == evaluations[-1]["gold"] == rows[-1]["evaluation/return_mean"]
    assert {"prompt", "response", "score"} == set(evaluations[0]["samples"][0])
    models = {name: load_model(run.path / name)[0].state_dict() for name in ("model", "best", "reference")}
    original, now = gpt().state_dict(), run.policy.text.module.state_dict()
    assert all(torch.equal(models["reference"][name], original[name]) for name in original)
    assert all(torch.equal(models["model"][name], now[name]) for name in now)
    assert not torch.equal(models["model"]["tokens.weight"], original["tokens.weight"])
    best = max(evaluations, key=lambda row: float(row["gold"]))
    assert Run.open(run.path).checkpoints.best() == best["steps"]
    assert TuneConfig.from_json(json.loads(json.dumps(run.config.to_json()))) == run.config


@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
def test_a_run_goes_on_bit_for_bit_as_if_it_had_never_stopped(agent: str, folder: Path, tmp_path: Path) -> None:
    rewarding = RewardConfig(beta=0.1, kl_target=3.0, kl_horizon=500, normalise_rewards=16)
    whole = config_of(folder, agent, 500, rewarding=rewarding)
    straight = tune(whole, tmp_path / "straight", quiet=True)
    tune(replace(whole, loop=replace(whole.loop, steps=250)), tmp_path / "broken", quiet=True)
    resumed = resume(tmp_path / "broken", steps=500, quiet=True)
    assert torch.equal(straight.policy.flat, resumed.policy.flat)
    ours, theirs = (Run.open(tmp_path / name).read_metrics() for name in ("broken", "straight"))
    timed = {"seconds", "steps_per_second"}
    evaluated = {"evaluation/return_mean", "evaluation/return_std", "evaluation/length_mean"}
    for one, other in zip(ours, theirs, strict=True):
        assert {k: v for k, v in one.items() if k not in timed | evaluated} == {
            k: v for k, v in other.items() if k not in timed | evaluated
        }
    steps = [row["steps"] for row in read_evaluations(tmp_path / "broken")]
    assert steps == sorted(set(steps))


def test_a_runaway_keeps_the_last_good_checkpoint_and_its_model(folder: Path, tmp_path: Path) -> None:
    loop = TuneLoopConfig(20_000, evaluation_every=0, checkpoint_every=1, keep_checkpoints=0, tensorboard=False)
    config = config_of(folder, rewarding=RewardConfig(beta=0.0, kl_limit=2.0), loop=loop)
    config = replace(config, agent=replace(DEFAULTS["ppo"], learning_rate=0.03))
    with pytest.raises(KLRunawayError, match=r"above kl_limit 2, .* keeps the model of step"):
        tune(config, tmp_path / "run", quiet=True)
    run = Run.open(tmp_path / "run")
    steps = [int(row["steps"]) for row in run.read_metrics()]
    # The policy of the last update is the one whose responses were too far away: the one before it is kept.
    assert run.checkpoints.latest() == ([0, *steps][-2])
    kept = run.checkpoints.load()[1]["policy"]["weights"]
    model = load_model(tmp_path / "run")[0].state_dict()
    assert all(torch.equal(kept[f"model.{name}"], value) for name, value in model.items())


class Failing:
    """A judge that is gone after some calls."""

    calls = 0

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        Failing.calls += 1
        if Failing.calls > 3:
            raise TimeoutError("no answer")
        return share_of_a(prompts, responses)


failing = Failing()


def test_a_judge_that_fails_in_mid_run_loses_nothing(folder: Path, tmp_path: Path) -> None:
    sys.modules["failing_judge"] = sys.modules[__name__]
    loop = TuneLoopConfig(1_000, evaluation_every=0, checkpoint_every=0, tensorboard=False)
    config = replace(config_of(folder, loop=loop), reward=("python:failing_judge:failing",))
    Failing.calls = 0
    with pytest.raises(RllabError, match="TimeoutError: no answer") as error:
        tune(config, tmp_path / "run", quiet=True)
    done = int(Run.open(tmp_path / "run").read_metrics()[-1]["steps"])
    assert f"`rllab resume {tmp_path / 'run'}` goes on from step {done:,}." in str(error.value)
    Failing.calls = -10_000
    again = resume(tmp_path / "run", quiet=True)
    other = tune(config, tmp_path / "unbroken", quiet=True)
    assert again.steps == other.steps > done > 0
    weights, expected = (run.policy.module.state_dict() for run in (again, other))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("agent", "settings", "group", "head"),
    [
        ("ppo", {"advantage": "group"}, 4, "none"),
        ("ppo", {"advantage": "leave_one_out", "ratio": "sequence"}, 4, "none"),
        ("reinforce", {"baseline": "leave_one_out"}, 4, "none"),
        ("reinforce", {}, 1, "none"),
        ("reinforce", {"baseline": "value"}, 1, "separate"),
        ("trpo", {}, 1, "separate"),
    ],
)
def test_groups_and_critics_follow_from_the_baseline(
    agent: str, settings: dict[str, Any], group: int, head: str, folder: Path, tmp_path: Path
) -> None:
    config = replace(config_of(folder, steps=100), agent=replace(DEFAULTS[agent], **settings))
    assert config.group_size == group
    run = tune(config, tmp_path / "run", quiet=True)
    assert run.policy.config.value_head == head
    assert run.policy.module.value is None or head != "none"


def test_the_command_reports_scores_samples_and_what_to_do_next(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(arguments(folder, tmp_path / "run", "--agent", "reinforce", "--gold", "length:2")) == 0
    out = capsys.readouterr().out
    assert "reinforce tunes" in out
    assert "Gold score" in out
    assert "rllab language generate" in out
    assert "Before" in out


def test_what_cannot_work_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cases: dict[str, list[str]] = {
        "did you mean ppo": ["--agent", "pppo"],
        "use --maximum-new-tokens": ["--rollout-steps", "10"],
        "use --minibatch-responses": ["--minibatch-size", "10"],
        "do not divide into minibatches": ["--minibatch-responses", "3"],
        "group-size of 2 or more": ["--agent", "reinforce", "--baseline", "group", "--group-size", "1"],
        "do not divide into groups": ["--agent", "reinforce", "--baseline", "group", "--group-size", "3"],
        "learns with a critic": ["--value-head", "none"],
        "There is no reward 'praise'": ["--reward", "praise:much"],
        "names no reward": ["--reward", "keywords"],
        "cannot be imported": ["--reward", "python:no_such_module:reward"],
        "holds no trained model": ["--reward", f"model:{tmp_path}"],
        "is no reward model": ["--reward", f"model:{folder / 'model'}"],
        "is no length": ["--reward", "length:short"],
        "There is no data set": ["--prompts", str(tmp_path / "absent.txt")],
        "do not fit into the model's": ["--maximum-new-tokens", "23", "--prompts", str(folder / "prompts.txt")],
        "nothing is left to learn": ["--agent", "reinforce", "--frozen-layers", "2"],
    }
    for words, more in cases.items():
        with pytest.raises(RllabError, match=words):
            command([*arguments(folder, out), *more])
        assert not out.exists()
    with pytest.raises(RllabError, match="Name what is rewarded"):
        command([str(folder / "model"), "--out", str(out)])
    with pytest.raises(RllabError, match="holds no trained model"):
        command([str(tmp_path), "--reward", REWARD, "--out", str(out)])


def test_a_tokenizer_that_is_not_the_models_is_refused_though_it_has_as_many_tokens(tmp_path: Path) -> None:
    save_model(tmp_path / "model", gpt(), tokenizer())
    config = CharacterLevelConfig(special=SpecialTokens(unknown="<unk>", end="<end>"))
    CharacterLevel.train(["ijklmnop "], config).save(tmp_path / "model" / "tokenizer")
    with pytest.raises(RllabError, match="as many tokens as the model's, but other ones"):
        load_model(tmp_path / "model")


def test_a_run_of_another_kind_is_not_gone_on_with(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", {"kind": "other"}).close()
    with pytest.raises(RllabError, match="no fine-tuning from rewards"):
        resume(tmp_path / "run")


def test_the_empty_prompt_serves_training_and_evaluation(folder: Path, tmp_path: Path) -> None:
    run = tune(
        config_of(folder, steps=100, prompts=PromptsConfig("none", evaluation_prompts=8)), tmp_path / "r", quiet=True
    )
    assert {sample["prompt"] for row in read_evaluations(run.path) for sample in row["samples"]} == {""}


def test_an_evaluation_of_the_same_policy_is_the_same(folder: Path) -> None:
    workshop = TuneWorkshop(config_of(folder))
    one, other = workshop.evaluator(workshop.policy), workshop.evaluator(workshop.policy)
    assert one.measures == other.measures
    assert one.measures["kl_response"] == pytest.approx(0, abs=1e-5)
    assert workshop.evaluator(policy(seed=3)).measures != one.measures


def test_a_run_depends_on_no_other_folder_and_mends_its_reference(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    config = replace(config_of(folder, steps=150), model=str(tmp_path / "model"))
    tune(config, tmp_path / "run", quiet=True)
    shutil.rmtree(tmp_path / "run" / "reference")
    resume(tmp_path / "run", steps=300, quiet=True)
    shutil.rmtree(tmp_path / "model")
    assert resume(tmp_path / "run", steps=450, quiet=True).steps >= 450


def test_rows_of_evaluations_are_whole_whatever_their_texts_hold(tmp_path: Path) -> None:
    rows = [{"steps": steps, "samples": [{"response": "a\x85b\u2028c\x1cd\r\n"}]} for steps in (0, 5)]
    path = tmp_path / FILE
    path.write_text("".join(map(_line, rows)) + '{"steps": 7, "sam', "utf-8")
    assert read_evaluations(tmp_path) == rows


def test_prompts_are_cut_and_those_held_out_are_never_trained_on(folder: Path) -> None:
    letters, model = tokenizer(), text_model(gpt())
    config = PromptsConfig(str(folder / "prompts.txt"), prompt_tokens=3, evaluation_prompts=2)
    training, held_out = read_prompts(config, letters, model, RESPONSE)
    assert len(held_out) == 2
    assert max(map(len, training)) == 3
    written = {*PROMPTS, "gab", "hh", "fed a", "bade"}
    assert {letters.decode(row) for row in [*training, *held_out]} == {text[:3] for text in written}
    whole = read_prompts(replace(config, prompt_tokens=0), letters, model, RESPONSE)
    assert max(len(row) for part in whole for row in part) == len("dead beef")
    assert read_prompts(config, letters, model, RESPONSE) == (training, held_out)
