"""What the ten runs stand beside: the backbone before any training, and a bag of words.

Both see what the runs see: the same reviews, cut to the same tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from t5peft.base import machine
from t5peft.base.errors import InputError
from t5peft.base.progress import Progress
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, tokenizers
from t5peft.inputs.data import Tokens
from t5peft.measure.measurements import Baselines
from t5peft.methods.table import runs_of
from t5peft.training import evaluation
from t5peft.training.jobs import check_tokenizer


def measure(study: Study) -> Baselines:
    """Measure both, and how many test reviews are, as they are cut, training reviews too.

    Raises `InputError` for a tokenizer that does not fit and reviews that teach a bag nothing.
    """
    tokenizer = tokenizers.load(study.tokenizer or study.backbone)
    check_tokenizer(tokenizer, runs_of(study)[0], study)
    train, test = data.tokens(study, "train"), data.tokens(study, "test")
    zero_shot, other = zero_shot_accuracy(study, tokenizer, test)
    texts, asked = (truncated(tokenizer, side, study.max_length) for side in (train, test))
    known = set(texts)
    return {
        "zero_shot_accuracy": zero_shot,
        "zero_shot_other_words": other,
        "bag_of_words_accuracy": bag_of_words_accuracy(texts, train.labels, asked, test.labels),
        "test_reviews_in_training": sum(text in known for text in asked),
        "test_examples": len(test),
    }


def zero_shot_accuracy(study: Study, tokenizer: Any, test: Tokens) -> tuple[float, float]:
    """(accuracy, share of other words) of the backbone as it is."""
    device = machine.device()
    model = backbone.load(study.backbone, study.seed).to(device)  # type: ignore[arg-type]
    autocast = torch.autocast(device, torch.bfloat16, enabled=study.precision == "bf16")
    with autocast, Progress("backbone before training", len(test)) as progress:
        answers = evaluation.predict(
            model, tokenizer, test, study.max_length, on_batch=progress.add
        )
    return evaluation.score(answers, test.labels)


def bag_of_words_accuracy(
    texts: list[str], labels: np.ndarray, asked: list[str], right: np.ndarray
) -> float:
    """Logistic regression on TF-IDF of words and pairs of words, fitted by scikit-learn.

    Raises `InputError` for training reviews that teach it nothing.
    """
    bag = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=1000)
    try:
        model.fit(bag.fit_transform(texts), labels)
    except ValueError as error:
        learned = "reviews of both labels with words that come twice"
        raise InputError(
            "training reviews", str(error).splitlines()[0], learned, "raise train_examples"
        ) from None
    return float(model.score(bag.transform(asked), right))


def truncated(tokenizer: Any, tokens: Tokens, max_length: int) -> list[str]:
    """The texts that are left of the reviews once they are cut to `max_length` tokens."""
    ends = tokens.starts[:-1] + tokens.lengths(max_length) - 1
    kept = zip(tokens.starts[:-1], ends, strict=True)
    return tokenizer.batch_decode([tokens.ids[start:end] for start, end in kept])
