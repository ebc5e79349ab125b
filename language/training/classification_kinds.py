"""What classifiers differ in: the model that is pre-trained for each, sizes that two cores train, how they learn."""

from dataclasses import dataclass, replace
from typing import Any

from envs.errors import RllabError
from language.models.bert_classifier import BERTClassifierConfig
from language.models.elmo_classifier import ELMoClassifierConfig
from language.models.gpt_classifier import GPTClassifierConfig
from language.models.ulmfit import ULMFiTConfig
from language.training.classification import ClassificationConfig
from language.training.fine_tuning import FineTuningConfig
from language.training.pretraining_kinds import KINDS


@dataclass(frozen=True)
class ClassifierKind:
    """One kind of classifier; the configurations are the command's defaults."""

    model_kind: str
    """See `language.models.folder.KINDS`."""
    pretrained: str
    """The kind of model that is pre-trained for it, in the same table."""
    part: str
    """The field of the classifier's configuration that has that model's."""
    model: Any
    """Of the size that `rllab language pretrain` has by default."""
    batches: ClassificationConfig
    """How documents become batches."""
    fine_tuning: FineTuningConfig
    """How it learns. The papers' learning rates are for their sizes; models this small need higher ones."""

    def with_pretrained(self, model: Any, config: Any) -> Any:
        """A classifier's configuration with that of a pre-trained model in it."""
        return replace(model, **{self.part: config})


CLASSIFIERS: dict[str, ClassifierKind] = {
    "ulmfit": ClassifierKind(
        "ulmfit", "awd-lstm", "language_model", ULMFiTConfig(KINDS["awd-lstm"].model), ClassificationConfig(64),
        FineTuningConfig(
            epochs=10, learning_rate=0.01, schedule="slanted", warmup=0.1, floor=1 / 32, layer_factor=2.6,
            gradual_unfreezing=True, beta_1=0.7, beta_2=0.99, epsilon=1e-8,
        ),
    ),
    "gpt": ClassifierKind(
        "gpt-classifier", "gpt", "gpt", GPTClassifierConfig(KINDS["gpt"].model), ClassificationConfig(32),
        FineTuningConfig(epochs=3, learning_rate=5e-4, warmup=0.002, epsilon=1e-8),
    ),
    "bert": ClassifierKind(
        "bert-classifier", "bert", "bert", BERTClassifierConfig(KINDS["bert"].model), ClassificationConfig(32),
        FineTuningConfig(epochs=3, learning_rate=5e-4),
    ),
    "elmo": ClassifierKind(
        "elmo-classifier", "elmo", "elmo", ELMoClassifierConfig(KINDS["elmo"].model), ClassificationConfig(32),
        FineTuningConfig(epochs=5, learning_rate=1e-3, schedule="constant", warmup=0.0, weight_decay=0.0, epsilon=1e-8),
    ),
}  # fmt: skip
"""By the name that `rllab language classify train` has for it.

ULMFiT: Howard, Ruder 2018, section 4.1 (batches of 64, rate 0.01, Adam with β1 0.7 and β2 0.99). GPT: Radford et al.
2018, section 4.1 (32, 3 epochs, rate 6.25e-5 for 12 layers of 768, linear, 0.2 % warm-up, λ 0.5). BERT: Devlin et al.
2018, appendix A.3 (16 or 32, 2 to 4 epochs, rate 5e-5 to 2e-5, 10 % warm-up). ELMo: Adam at 0.001 (appendix A).
"""


def classifier_kind(model_kind: str) -> ClassifierKind:
    """By the name of its kind of model. Raises RllabError if there is none."""
    for kind in CLASSIFIERS.values():
        if kind.model_kind == model_kind:
            return kind
    known = ", ".join(kind.model_kind for kind in CLASSIFIERS.values())
    raise RllabError(f"There is no classifier of the kind '{model_kind}'; there are {known}.")
