"""Reward models whose trunk is a model of `transformers`: equal to theirs, with adapters that share what is frozen, as
runs, as rewards of other runs, and learnt while a model is tuned."""

import json
import shutil
import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_preferences import model_folder, records, written
from tiny_teaching import FAST, SCORE, Person
from tiny_texts import PROMPTS, RESPONSE, tokenizer

pytest.importorskip("transformers")
pytest.importorskip("peft")

from tiny_transformers import KINDS, causal_lm, folder_of, hugging_face

from envs.errors import RllabError
from language.cli import evaluate, reward
from language.models.causal_lm import CausalLM
from language.models.folder import load_model, save_model
from language.models.gpt import GPT
from language.models.lora import LoRAConfig
from language.preferences.collect import RewardConfig
from language.preferences.comparing import Comparing
from language.preferences.data import TextsConfig
from language.preferences.learned_reward import LearnedReward
from language.preferences.lora import load_adapted
from language.preferences.policy import TextPolicy
from language.preferences.prompts import PromptsConfig
from language.preferences.responses import ResponsesConfig
from language.preferences.reward import RewardTraining, ScoringConfig, cross_validated
from language.preferences.reward_measures import EncodedComparison
from language.preferences.reward_model import RewardMember, TextRewardConfig, TextRewardModel, text_row, text_rows
from language.preferences.rewards import ModelReward, make_reward
from language.preferences.sft import RowsConfig
from language.preferences.teaching import TextTeaching
from language.preferences.teaching_config import TeachingConfig
from language.preferences.text_evaluation import read_evaluations
from language.preferences.text_models import text_model
from language.preferences.tune import REWARD_FOLDER, resume, tune
from language.preferences.tuning_config import DEFAULTS, BatchConfig, TuneConfig, TuneLoopConfig
from language.tokenizers.pretrained import PretrainedTokenizer
from language.training.training_config import TrainingConfig
from preference import bradley_terry
from preference.labelling.settings import PageConfig
from rllab.experiment import resume as resume_run
from rllab.runs import Run

each_kind = pytest.mark.parametrize("kind", KINDS)
LORA, OFF = LoRAConfig(2), LoRAConfig()
EVERYWHERE = LoRAConfig(4, lora_targets=("all-linear",))
SLOW = [pytest.param(OFF, id="whole", marks=pytest.mark.slow), pytest.param(EVERYWHERE, id="adapters")]
ROWS = [[2, 3, 4, 1], [5], [6, 6, 7, 8, 9, 2, 1], [3, 1]]
TOKENS = torch.tensor([[3, 5, 4, 2, 9, 6, 7, 1]])
TRAINING = TrainingConfig(
    30, 1e-2, warmup=2, weight_decay=0, evaluation_every=10, checkpoint_every=0, tensorboard=False
)
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-4}


def made(kind: str = "llama", members: int = 1, lora: LoRAConfig = OFF, frozen_layers: int = 0) -> TextRewardModel:
    model = causal_lm(kind)
    torch.manual_seed(0)
    return TextRewardModel.of(model, members, lora, frozen_layers).eval()


def members_of(model: TextRewardModel) -> list[RewardMember]:
    return [cast(RewardMember, member) for member in model.members]


def moved(model: TextRewardModel) -> TextRewardModel:
    """The same with adapters that are not nothing any more."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def frozen(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}


# The model.


@each_kind
def test_scores_are_those_of_a_sequence_classifier_of_transformers_with_the_same_weights(
    kind: str, tmp_path: Path
) -> None:
    import transformers

    hugging_face(kind).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1, pad_token_id=0)
    ours = made(kind)
    [member] = members_of(ours)
    head = next(module for module in theirs.children() if isinstance(module, torch.nn.Linear))
    assert head.bias is None
    with torch.no_grad():
        head.weight.copy_(member.head.weight)
    longest = max(map(len, ROWS))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ROWS])
    valid = torch.arange(longest) < torch.tensor([len(row) for row in ROWS])[:, None]
    expected = theirs.eval()(tokens, attention_mask=valid.long()).logits[:, 0]
    torch.testing.assert_close(ours.score(tokens, valid), expected)


@each_kind
@pytest.mark.parametrize("lora", [OFF, LORA], ids=["whole", "adapters"])
def test_padding_on_either_side_changes_no_score(kind: str, lora: LoRAConfig) -> None:
    model = moved(made(kind, 2, lora))
    expected = torch.cat([model.score(torch.tensor([row])) for row in ROWS])
    wide = 9
    for before in ([0] * 4, [wide - len(row) for row in ROWS], [2, 8, 0, 3]):  # right, left, and each as it comes
        tokens, valid = torch.full((4, wide), 8), torch.zeros(4, wide, dtype=torch.bool)
        for number, (row, start) in enumerate(zip(ROWS, before, strict=True)):
            tokens[number, start : start + len(row)] = torch.tensor(row)
            valid[number, start : start + len(row)] = True
        torch.testing.assert_close(model.score(tokens, valid), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.all_scores(ROWS), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RllabError, match="without tokens"):
        model.score(tokens, torch.zeros_like(valid))
    with pytest.raises(RllabError, match="32"):
        model.score(torch.full((1, 33), 2))


@each_kind
def test_one_pass_over_both_sides_is_two_passes(kind: str) -> None:
    model = moved(made(kind, 2, LORA))
    pairs = [EncodedComparison([2, 3, 1], [4, 1], 1.0, (2, 1)), EncodedComparison([5, 5, 5, 1], [6, 1], 0.25, (3, 1))]
    problem = Comparing(pairs, pairs, 2, members=2, bootstrap=False)
    losses = []
    for pair in pairs:
        first, second = (model.logits(torch.tensor([row]))[:, 0] for row in (pair.first, pair.second))
        losses.append(bradley_terry.cross_entropy(first - second, torch.tensor([pair.mu])).mean())
    found = problem.loss(model, problem.batch())
    torch.testing.assert_close(found.total, sum(losses), rtol=1e-4, atol=1e-5)


@each_kind
def test_frozen_weights_are_the_same_memory_in_all_members_and_in_the_model_and_adapters_differ(kind: str) -> None:
    model = causal_lm(kind)
    found = TextRewardModel.of(model, 3, LORA)
    trunks = [member.trunk for member in members_of(found)]
    addresses = [{p.data_ptr() for p in frozen(trunk).values()} for trunk in trunks]
    assert addresses[0] == addresses[1] == addresses[2] <= {p.data_ptr() for p in model.parameters()}
    assert all(p.requires_grad for p in model.parameters())  # the model can still learn itself
    learnt = [{n: p for n, p in trunk.named_parameters() if p.requires_grad} for trunk in trunks]
    assert all("lora_" in name for name in learnt[0])
    for name, parameter in learnt[0].items():
        assert ("lora_B" in name) == torch.equal(parameter, learnt[1][name])  # B begins at 0, A at random
    assert set(found.state_dict()) == {
        *(f"members.{number}.trunk.{name}" for number in range(3) for name in learnt[0]),
        *(f"members.{number}.head.{part}" for number in range(3) for part in ("weight", "bias")),
        "gain", "bias", "offset", "scale", "spread",
    }  # fmt: skip
    assert found.config.causal_lm is not None
    assert (found.context, found.vocabulary_size) == (32, 11)


@pytest.mark.parametrize("kind", ["gpt", *KINDS])
def test_lower_layers_can_be_frozen_once_for_all_members(kind: str, tmp_path: Path) -> None:
    base = load_model(model_folder(tmp_path))[0] if kind == "gpt" else causal_lm(kind)
    model = TextRewardModel.of(base, 2, frozen_layers=1)
    first, second = (member.trunk for member in members_of(model))
    lower = text_model(first).lower(1)
    assert not any(p.requires_grad for p in lower)
    assert {p.data_ptr() for p in lower} == {p.data_ptr() for p in text_model(second).lower(1)}
    upper = {id(p) for p in first.parameters()} - {id(p) for p in lower}
    assert upper
    assert all(p.requires_grad for p in first.parameters() if id(p) in upper)
    apart = {p.data_ptr() for p in second.parameters()}
    assert not any(p.data_ptr() in apart for p in first.parameters() if id(p) in upper)
    assert all(p.requires_grad for p in base.parameters())
    assert all(torch.equal(a, b) for a, b in zip(lower, text_model(cast(Any, base)).lower(1), strict=True))
    with pytest.raises(RllabError, match="the model has 2 layers"):
        TextRewardModel.of(base, frozen_layers=3)


@each_kind
@pytest.mark.parametrize("lora", [OFF, LORA], ids=["whole", "adapters"])
def test_a_saved_model_gives_the_same_scores(kind: str, lora: LoRAConfig, tmp_path: Path) -> None:
    model = moved(made(kind, 2, lora))
    model.normalise_logits_on(ROWS)
    model.normalise_scores_on(ROWS)
    expected, state = model.all_scores(ROWS), torch.get_rng_state()
    save_model(tmp_path, model, tokenizer())
    loaded, _ = load_model(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(loaded, TextRewardModel)
    assert loaded.config.causal_lm is not None
    assert not loaded.config.causal_lm.lora.on  # they are merged
    assert torch.equal(model.all_scores(ROWS), expected)  # and still there in the model itself
    if lora.on:
        torch.testing.assert_close(loaded.all_scores(ROWS), expected, **CLOSE)
    else:
        assert torch.equal(loaded.all_scores(ROWS), expected)
        assert loaded.config == model.config


def test_what_begins_every_text_begins_rows_once_and_is_not_cut() -> None:
    document = tokenizer().to_huggingface()
    document["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<unk>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<unk>": {"id": "<unk>", "ids": [0], "tokens": ["<unk>"]}},
    }  # fmt: skip
    letters = PretrainedTokenizer(document, {"bos_token": "<unk>", "eos_token": "<end>"})
    plain = text_row(tokenizer(), "cab", "a")
    assert text_row(letters, "cab", "a") == [0, *plain] == text_row(letters, "<unk>cab", "a")
    assert text_row(letters, "cab", "a", 4) == [0, *plain[-3:]]
    model = made()
    scores = ModelReward(model, letters, model.context)(["cab"], ["a"])
    assert scores == pytest.approx(model.all_scores([[0, *plain]]).tolist(), abs=1e-6)


# Runs.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward")
    for kind in KINDS:
        folder_of(path / kind, kind)
    written(path / "pairs.jsonl", records())
    return path


def recipe(
    folder: Path, kind: str = "llama", lora: LoRAConfig = LORA, members: int = 1, frozen_layers: int = 0,
    pairs: str = "pairs", **changes: Any,
) -> RewardTraining:  # fmt: skip
    return RewardTraining.of(
        folder / kind, TextsConfig((str(folder / f"{pairs}.jsonl"),)), RowsConfig(8, too_long="cut"),
        ScoringConfig(members, normalise=16, normalise_tokens=8, frozen_layers=frozen_layers),
        replace(TRAINING, **changes), lora=lora,
    )  # fmt: skip


@each_kind
@pytest.mark.parametrize("lora", [OFF, LORA], ids=["whole", "adapters"])
def test_a_run_learns_which_responses_are_better_and_leaves_a_model_that_scores_alone(
    folder: Path, kind: str, lora: LoRAConfig, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(folder / kind, base)
    before = hugging_face(kind).state_dict()
    found = replace(recipe(folder, kind, lora, members=2), initial=str(base)).run(tmp_path / "run", quiet=True)
    assert found.predictions.measures.accuracy >= 0.9
    assert found.predictions.loss < 0.4
    shutil.rmtree(base)  # what is left needs nothing else
    model, _ = load_model(tmp_path / "run")
    assert isinstance(model, TextRewardModel)
    rows = json.loads((tmp_path / "run" / "tokens" / "normalising.json").read_text())
    scores = model.all_scores(rows)
    assert scores.mean().item() == pytest.approx(0, abs=1e-3)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    good, bad = make_reward((f"model:{tmp_path / 'run'}",))(["ab", "ab"], ["aaaaa", "hhhhh"])
    assert good > bad + 1
    if lora.on and kind == "llama":  # merging touches what has adapters alone
        trunk = members_of(model)[1].trunk.state_dict()
        names = [name for name in before if "q_proj" not in name and "v_proj" not in name and "lm_head" not in name]
        assert len(names) > 10
        assert all(torch.equal(trunk[f"body.{name}"], before[name]) for name in names)


def test_gpt_2_without_adapters_becomes_this_package_s_own(folder: Path) -> None:
    assert recipe(folder, "gpt2", OFF).model.gpt is not None
    assert recipe(folder, "gpt2", LORA).model.causal_lm is not None


def test_learning_leaves_frozen_weights_as_they_are(folder: Path, tmp_path: Path) -> None:
    model = causal_lm()
    found = TextRewardModel.of(model, 2, LORA)
    before = {name: p.detach().clone() for name, p in found.named_parameters()}
    made = recipe(folder)
    everything = np.ones(96, bool)
    problem = made.problem(load_model(folder / "llama")[1], everything, everything)
    problem.weights = torch.ones(2, 96)
    optimiser = torch.optim.Adam([p for p in found.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        problem.loss(found.train(), problem.batch()).total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    changed = {name for name, p in found.named_parameters() if not torch.equal(p, before[name])}
    learning = {name for name, p in found.named_parameters() if p.requires_grad}
    biases = {name for name in learning if name.endswith("head.bias")}  # which cancel in differences
    assert changed | biases == learning
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), causal_lm().parameters(), strict=True))


@pytest.mark.parametrize(
    ("lora", "frozen_layers"), [(OFF, 0), (OFF, 1), (LoRAConfig(2, lora_dropout=0.2), 0)],
    ids=["whole", "upper layers", "adapters"],
)  # fmt: skip
def test_a_run_that_goes_on_is_the_same_as_one_that_had_all_steps_from_the_start(
    folder: Path, tmp_path: Path, lora: LoRAConfig, frozen_layers: int
) -> None:
    constant: dict[str, Any] = {"schedule": "constant", "warmup": 0, "evaluation_every": 0, "checkpoint_every": 2}
    common = {"lora": lora, "members": 2, "frozen_layers": frozen_layers, **constant}
    recipe(folder, steps=5, **common).run(tmp_path / "short", quiet=True)
    resume_run(tmp_path / "short", steps=9, quiet=True)
    recipe(folder, steps=9, **common).run(tmp_path / "long", quiet=True)
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("short", "long"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    if frozen_layers:
        expected = causal_lm().state_dict()
        name = "body.model.embed_tokens.weight"
        assert torch.equal(one[f"members.1.trunk.{name}"], expected[name])


@pytest.mark.parametrize("lora", [OFF, LORA], ids=["whole", "adapters"])
def test_cross_validation_trains_a_model_for_each_fold_from_the_same_beginning(folder: Path, lora: LoRAConfig) -> None:
    found = cross_validated(recipe(folder, lora=lora, members=2, steps=20), 3)
    assert len(found.mu) == 96
    assert found.measures.accuracy > 0.9


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_the_length_of_responses_can_be_learnt(kind: str, folder: Path) -> None:
    generator = np.random.default_rng(0)
    pairs = []
    for number in range(160):
        long, short = int(generator.integers(7, 10)), int(generator.integers(2, 6))
        texts = ["".join(generator.choice(list("abcdefgh"), count)) for count in (long, short)]
        prompt = "abcdefgh"[number % 8] + "abcd"[number // 8 % 4]
        pairs.append({"prompt": prompt, "chosen": texts[0], "rejected": texts[1]})
    written(folder / "lengths.jsonl", pairs)
    found = cross_validated(recipe(folder, kind, EVERYWHERE, pairs="lengths", steps=60, evaluation_every=15), 2)
    assert found.measures.accuracy > 0.9
    assert found.baseline_measures.accuracy == 1.0
    assert found.length_correlation > 0.5


def test_the_command_and_what_its_model_judges(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, pairs, out = str(folder / "gpt_neox"), str(folder / "pairs.jsonl"), tmp_path / "run"
    short = ["--steps", "12", "--learning-rate", "0.01", "--batch-size", "8", "--evaluation-every", "2", "--patience", "3",
             "--normalise-tokens", "8", "--no-tensorboard"]  # fmt: skip
    assert reward.command([base, pairs, *short, "--lora-rank", "2", "--members", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for words in ("reward model", "length alone", "Calibration error", "held out", "Spearman"):
        assert words in printed
    document = json.loads((out / "config.json").read_text())
    assert (document["lora"]["lora_rank"], document["model"]["causal_lm"]["settings"]["model_type"]) == (2, "gpt_neox")
    assert reward.command([base, pairs, *short, "--frozen-layers", "1", "--folds", "3"]) == 0
    assert "96 cross-validated in 3 folds" in capsys.readouterr().out
    assert evaluate.command([
        base, "--prompts", pairs, "--reward", f"model:{out}", "--maximum-new-tokens", "8", "--best-of", "3",
        "--write-best", str(tmp_path / "best.jsonl"),
    ]) == 0  # fmt: skip
    assert "0.43 nats" in capsys.readouterr().out


def test_bad_input_is_refused_with_one_sentence(folder: Path, tmp_path: Path) -> None:
    import transformers

    pairs = str(folder / "pairs.jsonl")
    model_folder(tmp_path / "gpt")
    with pytest.raises(RllabError, match="holds a GPT, and adapters are for models of transformers"):
        reward.command([str(tmp_path / "gpt"), pairs, "--lora-rank", "2"])
    with pytest.raises(RllabError, match="Adapters are for models of transformers"):
        TextRewardModel.of(cast(GPT, load_model(tmp_path / "gpt")[0]), lora=LORA)
    with pytest.raises(RllabError, match="A Linear cannot become a reward model"):
        TextRewardModel.of(torch.nn.Linear(2, 2))
    with pytest.raises(RllabError, match="one kind of trunk"):
        TextRewardConfig(causal_lm=causal_lm().config)
    with pytest.raises(RllabError, match="frozen_layers must be 0"):
        ScoringConfig(frozen_layers=-1)
    with pytest.raises(RllabError, match="the model has 2 layers"):
        reward.command([str(folder / "llama"), pairs, "--frozen-layers", "3"])
    t5 = transformers.T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    bert = transformers.BertConfig(
        vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=1.0,
    )  # fmt: skip
    vision = transformers.ViTConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    for model, words in (
        (transformers.T5ForConditionalGeneration(t5), "holds a t5, which is a model with an encoder and no causal"),
        (transformers.BertForMaskedLM(bert), "looks at tokens that come later"),
        (transformers.ViTModel(vision), "holds a vit, which is another kind of model and no causal"),
    ):
        other = folder_of(tmp_path / type(model).__name__)
        for old in ("config.json", "model.safetensors"):
            (other / old).unlink()
        model.save_pretrained(other)
        with pytest.raises(RllabError, match=words):
            reward.command([str(other), pairs])
    small = folder_of(tmp_path / "small")
    document = json.loads((small / "tokenizer.json").read_text())
    document["added_tokens"] = [*document.get("added_tokens", []), {
        "id": 11, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": True,
    }]  # fmt: skip
    (small / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(RllabError, match="The tokenizer has 12 tokens and the model 11"):
        reward.command([str(small), pairs])


# Learnt while a model is tuned.


def tuning(
    folder: Path, steps: int, lora: LoRAConfig, every: int, teacher: str = SCORE, **teaching: Any
) -> TuneConfig:  # fmt: skip
    (folder / "prompts.txt").write_text("\n".join([*PROMPTS, "gab", "hh", "fed a", "bade"]) + "\n")
    return TuneConfig(
        replace(DEFAULTS["ppo"], learning_rate=1e-2 if lora.on else 5e-3), str(folder / "gpt_neox"), (),
        prompts=PromptsConfig(str(folder / "prompts.txt"), prompt_tokens=0, evaluation_prompts=4),
        drawing=ResponsesConfig(RESPONSE), rewarding=RewardConfig(beta=0.02), batch=BatchConfig(32, 16),
        loop=TuneLoopConfig(steps, evaluation_every=every, checkpoint_every=every, tensorboard=False),
        teaching=TeachingConfig(
            (teacher,), **{"labels": 100, **FAST, "reward_learning_rate": 1e-2 if lora.on else 3e-3, **teaching}
        ), lora=lora,
    )  # fmt: skip


@pytest.mark.parametrize("lora", [OFF, LORA], ids=["whole", "adapters"])
def test_a_learnt_reward_stands_on_the_tuned_model_s_own_frozen_weights(folder: Path, lora: LoRAConfig) -> None:
    model, letters = load_adapted(folder / "llama", lora)
    policy = TextPolicy(model, tokenizer=letters)
    teaching = TextTeaching(
        TeachingConfig((SCORE,), reward_members=2), policy, letters, [letters.ids("ab")], ResponsesConfig(RESPONSE),
        steps=100, seed=0, run="12345678-1234-5678-1234-567812345678",
    )  # fmt: skip
    found = teaching.reward._new()
    own = {p.data_ptr() for p in policy.text.module.parameters()}
    for member in members_of(found):
        there = {p.data_ptr() for p in frozen(member.trunk).values()}
        assert there <= own
        assert bool(there) == lora.on
        learnt = [n for n, p in member.trunk.named_parameters() if p.requires_grad]
        assert learnt
        assert all("lora_" in name for name in learnt) == lora.on
    assert isinstance(policy.text.module, CausalLM)


@pytest.mark.parametrize("lora", SLOW)
def test_labels_alone_raise_the_true_score(folder: Path, lora: LoRAConfig, tmp_path: Path) -> None:
    run = tune(tuning(folder, 1200, lora, every=600), tmp_path / "run", quiet=True)
    gold = [row["gold"] for row in read_evaluations(run.path)]
    assert gold[0] < 0.1
    assert gold[-1] > 0.25
    many, none = make_reward((f"model:{run.path / REWARD_FOLDER}",))(["ab", "ab"], ["aaaaaaaa", "hhhhhhhh"])
    assert many > none + 1


class Enough(Exception):
    """Ends a run as nothing that it knows of would."""


@pytest.mark.parametrize("lora", SLOW)
def test_a_tuning_that_goes_on_is_the_uninterrupted_one(folder: Path, lora: LoRAConfig, tmp_path: Path) -> None:
    whole = tuning(
        folder, 1000, lora, every=500, labels=20, reward_members=2, reward_epochs=1, rate_decay=200.0,
        reward_normalise=8, candidates=2,
    )  # fmt: skip
    straight = tune(whole, tmp_path / "straight", quiet=True)
    real, calls = TextTeaching.after_update, [0]

    def after_update(self: TextTeaching, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] > 4:
            raise Enough
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextTeaching, "after_update", after_update)
        with pytest.raises(Enough):
            tune(whole, tmp_path / "broken", quiet=True)
    resumed = resume(tmp_path / "broken", quiet=True)
    assert torch.equal(straight.policy.flat, resumed.policy.flat)
    timed = {"seconds", "steps_per_second"}
    rows = [
        [{k: v for k, v in row.items() if k not in timed} for row in Run.open(tmp_path / name).read_metrics()]
        for name in ("broken", "straight")
    ]
    assert rows[0] == rows[1]
    models = [cast(TextRewardModel, load_model(tmp_path / name / REWARD_FOLDER)[0]) for name in ("broken", "straight")]
    assert torch.equal(models[0].all_scores(ROWS), models[1].all_scores(ROWS))
    assert asdict(TuneConfig.from_json(Run.open(tmp_path / "broken").config).lora) == asdict(lora)


def test_a_person_s_answers_are_learnt_by_adapters(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    person = Person(port, lambda text: -text.count("h") - text.count("g"))
    person.start()
    page = PageConfig(port=port, second_opinions=0.0, repeats=0.0)
    run = tune(tuning(folder, 300, EVERYWHERE, 0, "human", labels=60, serving=page), tmp_path / "run", quiet=True)
    person.ending.set()
    person.join(10)
    assert person.problems == []
    good, bad = make_reward((f"model:{run.path / REWARD_FOLDER}",))(["ab", "ab"], ["aabcab", "hghhgg"])
    assert good > bad


def test_a_reward_s_state_has_no_frozen_weights_and_restores_it() -> None:
    model = causal_lm()
    rewards = [LearnedReward(model, tokenizer(), TeachingConfig((SCORE,)), 0, LORA) for _ in range(2)]
    rewards[0].normalise_over(["ab"] * 3, ["a", "bb", "hhh"])
    rewards[0].model = moved(rewards[0]._new())
    state = rewards[0].state_dict()
    assert not any("embed" in name or "base_layer" in name for name in state["model"])
    rewards[1].load_state_dict(state)
    assert rewards[1](["ab", "c"], ["d", "eee"]) == rewards[0](["ab", "c"], ["d", "eee"])
    rows = text_rows(tokenizer(), ["ab", "c"], ["d", "eee"], 32)
    assert rewards[0](["ab", "c"], ["d", "eee"]) == rewards[0].model.all_scores(rows).tolist()
