"""How long runs take here, and how much memory.

Times are from two real steps and a few answers of one of the runs. A trained step goes forward and
back: twice the work of an answer where the backbone is frozen, three times where all is trained
(Kaplan et al., 2020, count 2 forward and 4 backward operations).
"""

from __future__ import annotations

from collections.abc import Sequence

from t5peft.base import machine
from t5peft.base.studies import Study
from t5peft.inputs import backbone, checks, data, hub
from t5peft.methods import formulas
from t5peft.methods.table import Run
from t5peft.training import compiling, evaluation, loop

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


BYTES = {"fp32": 4.0, "bf16": 2.5}
"""Of a number that is kept for the way back, some of which stay in float32."""

BESIDES = 0.2e9
"""Bytes of reviews, buffers and kernels, as found for t5-small on a CPU (`test_estimate`)."""


def memory(run: Run, study: Study) -> float:
    """Bytes that a run takes, about: the T5, what is trained, and a part of a batch, or answers.

    Of the trained there are gradients, two moments of AdamW and a copy. For each token an encoder
    layer keeps its inputs, q, k, v and what comes of them, the inner widths, and on a CPU the
    attention's scores: some 20,500 numbers in t5-small of 256 tokens, as measured; an answer needs
    half of the others, in one layer.
    """
    config = backbone.load_on_meta(study.backbone).config
    weights = sum(formulas.parts(config).values())
    added = formulas.derive(run.method, config, run.settings).derived
    trained = weights if run.method == "full" else added
    inner = 6 * config.d_model + 5 * config.num_heads * config.d_kv + 4 * config.d_ff
    device, token = machine.device(), study.max_length * BYTES[study.precision]
    scores = 4 * config.num_heads * study.max_length if device == "cpu" else 0
    part = study.micro_batch_size or loop.REVIEWS_AT_ONCE.get(device, study.batch_size)
    at_once = 2 * study.micro_batch_size or evaluation.ENCODED_AT_ONCE.get(device, 128)
    step, answer = part * config.num_layers * (inner + scores) * token, at_once * inner * token / 2
    fixed = machine.resident_memory() + BESIDES
    return fixed + 4 * (weights + added) + 16 * trained + max(step, answer)


def told(wanted: Sequence[Run], study: Study, jobs: int = 1) -> str:
    """A line on the memory that runs take, so many side by side, and on what is there."""
    sizes = {run.name: memory(run, study) for run in wanted}
    largest = sorted(sizes, key=lambda name: sizes[name])[-jobs:]
    takes, free = sum(sizes[name] for name in largest), machine.free_memory()
    free += 0 if jobs > 1 else machine.resident_memory()  # which is of this run
    line = f"memory: about {takes / 1e9:.1f} GB ({', '.join(largest)}) of {free / 1e9:.1f} GB free"
    ways_out = "a small micro_batch_size or a lower max_length" + ", or fewer --jobs" * (jobs > 1)
    return line + (f": it may not do; give {ways_out}" if takes > free else "")


def at_hand(study: Study) -> bool:
    """Can a run begin without the hub?"""
    own = study.backbone.startswith(backbone.RANDOM) or backbone.at_hand(study)
    words = not study.tokenizer or hub.at_hand(study.tokenizer, *hub.PIECES)
    reviews = study.data == data.MADE_UP or hub.at_hand(study.data, *hub.REVIEWS)
    return bool(own and words and reviews)


def measured(run: Run, study: Study) -> float:
    """Seconds of a whole run, from two steps and twice the same answers: the faster counts."""
    checks.check(study)
    job, max_length = compiling.prepared(run, study), study.max_length
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
