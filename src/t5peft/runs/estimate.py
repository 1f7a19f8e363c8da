"""How long runs take here: from two real steps and a few answers of one of them.

A trained step goes forward and back: twice the work of an answer where the backbone is frozen,
three times where all is trained (Kaplan et al., 2020, count 2 forward and 4 backward operations).
"""

from __future__ import annotations

from collections.abc import Sequence

from t5peft.base import machine
from t5peft.base.studies import Study
from t5peft.inputs import backbone, checks, data, hub
from t5peft.methods.table import Run
from t5peft.training import evaluation, jobs, loop

START = 10.0
"""Seconds until a run has begun."""

REACHED = 1 / 3
"""The share of a matrix product's rate that training reaches."""


def seconds(wanted: Sequence[Run], study: Study) -> dict[str, float]:
    """Seconds that each run may take on this machine, by its name.

    At the rate of the first one's own steps; where backbone or reviews are not at hand, at that of
    matrix products, as if each review were as long as the study allows.
    """
    first = wanted[0]
    rate = measured(first, study) / work(first, study) if at_hand(study) else supposed(study)
    return {run.name: START + rate * work(run, study) for run in wanted}


def work(run: Run, study: Study) -> float:
    """What a run does, in answers to a review."""
    step = 3 if run.method == "full" else 2
    return study.epochs * (step * study.train_examples + answered(study))


def answered(study: Study) -> int:
    """Reviews that are answered after each epoch."""
    return study.test_examples + min(study.train_sample, study.train_examples)


def at_hand(study: Study) -> bool:
    """Can a run begin without the hub?"""
    own = study.backbone.startswith(backbone.RANDOM) or backbone.at_hand(study)
    words = not study.tokenizer or hub.at_hand(study.tokenizer, *hub.PIECES)
    reviews = study.data == data.MADE_UP or hub.at_hand(study.data, *hub.REVIEWS)
    return bool(own and words and reviews)


def measured(run: Run, study: Study) -> float:
    """Seconds of a whole run, from two steps and twice the same answers: the faster counts."""
    checks.check(study)
    job, max_length = jobs.prepare(run, study), study.max_length
    steps, size = loop.steps(job, 1), min(study.batch_size, study.train_examples)
    count = min(2, -(-study.train_examples // size))
    step = min(machine.seconds(lambda: next(steps)) for _ in range(count))
    blocks = [*evaluation.by_length(job.test, max_length, job.model.device)]
    some = job.test.picked(blocks[len(blocks) // 2])
    block = min(machine.seconds(lambda: loop.answers(job, some, "timed")) for _ in range(2))
    answer = block * job.test.lengths(max_length).mean() / some.lengths(max_length).sum()
    return study.epochs * (study.train_examples / size * step + answered(study) * answer)


def supposed(study: Study) -> float:
    """Seconds of an answer by arithmetic: 2 operations a parameter that reads the review, a token.

    These are the encoder's, and the keys' and values' of the decoder's attention to it.
    """
    reads = ("encoder.block", "EncDecAttention.k", "EncDecAttention.v")
    weights = backbone.load_on_meta(study.backbone).named_parameters()
    size = sum(p.numel() for name, p in weights if any(part in name for part in reads))
    return 2 * size * study.max_length / (REACHED * machine.matrix_peak(study.precision))
