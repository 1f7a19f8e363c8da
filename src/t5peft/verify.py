"""Is a stored run what the code makes of its study? Asked of its first steps and of its answers.

What a run lacks of a trace is made here too: by the code that made the run, while it is that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from accelerate.utils import set_seed

from t5peft import machine, prediction, runs, trace, training
from t5peft.data import Tokens
from t5peft.errors import InputError
from t5peft.methods import Run
from t5peft.params import Params
from t5peft.progress import Progress
from t5peft.training import Job

ACCURACY = 0.002
"""How far, at most, the accuracy of answers made elsewhere may be from the recorded one."""


def first_losses(run: Run, params: Params, steps: int) -> np.ndarray:
    """The loss of each of a run's first steps (at most an epoch's), trained anew."""
    job = training.prepare(run, params)
    set_seed(1000 * params.seed + 1)
    job.model.train()
    reviews, losses = training.order(params, 1), []
    starts = range(0, len(reviews), params.batch_size)[:steps]
    progress = Progress(f"{run.name}, first steps", len(starts))
    for at in starts:
        losses.append(float(training.add_gradients(job, reviews[at : at + params.batch_size])))
        job.optimizer.step()
        job.optimizer.zero_grad(set_to_none=True)
        progress.add(1, f"loss {losses[-1]:.4f}")
    progress.close()
    return np.array(losses, np.float32)


def restored(run: Run, params: Params) -> Job:
    """A stored PEFT run as it was after its best epoch."""
    model = training.build(run, params)
    where = runs.folder(run, params)
    prediction.put(model, runs.tensors(where)[1], str(where))
    return training.with_fast_model(run, params, model)


def answers(job: Job, tokens: Tokens) -> np.ndarray:
    """What a run answers to reviews, as `trace.codes`."""
    from t5peft import evaluation

    progress = Progress(f"{job.run.name}, answers", len(tokens))
    with job.accelerator.autocast():
        said = evaluation.predict(
            job.model, job.tokenizer, tokens, job.params.max_length, job.run.placeholders,
            progress.add,
        )
    progress.close()
    return trace.codes(said)


# --- traces of runs from before there were traces -----------------------------------------------


def complete(params: Params, wanted: Iterable[Run], steps: int) -> Iterator[str]:
    """Make what fresh runs lack of a trace, the losses of all first; a line on each.

    Raises `InputError` where answers give another accuracy than is recorded.
    """
    for part in ("losses", "answers"):
        for run in wanted:
            where = runs.folder(run, params)
            with runs.lock(run, params) as mine:
                state = runs.status(run, params)
                held = trace.load(where) if state.state in runs.SHOWN else trace.Trace()
                if not mine:
                    told = "another process has it"
                elif state.state != "fresh":
                    told = f"not made: the run is {state.state} ({state.reason})"
                elif getattr(held, part).size:
                    told = f"there, {len(getattr(held, part))}"
                elif part == "answers" and run.method == "full":
                    told = "not made: full fine-tuning stores no weights"
                else:
                    told = (add_losses if part == "losses" else add_answers)(run, params, held, steps)
                yield f"{run.name:27} {part:8} {told}"


def add_losses(run: Run, params: Params, held: trace.Trace, steps: int) -> str:
    """Add the losses of a run's first steps to its trace."""
    held.losses, held.losses_by = first_losses(run, params, steps), machine.kind()
    where = runs.folder(run, params)
    runs.put(where, runs.read(where / runs.RECORD), {runs.TRACE: held.packed()})
    return f"made, {len(held.losses)} steps"


def add_answers(run: Run, params: Params, held: trace.Trace, _: int) -> str:
    """Add the answers of its best epoch."""
    where = runs.folder(run, params)
    record, job = runs.read(where / runs.RECORD), restored(run, params)
    held.epochs, held.answers_by = np.array([record["best_epoch"]]), machine.kind()
    held.answers = answers(job, job.test)[None]
    found, recorded = float((held.answers[0] == job.test.labels).mean()), record["best_accuracy"]
    if abs(found - recorded) > ACCURACY:
        raise InputError(
            f"answers of {run.name}",
            f"{100 * found:.2f}% right",
            f"{100 * recorded:.2f}% to {100 * ACCURACY:.1f} points, as recorded",
            "train the run again",
        )
    runs.put(where, record, {runs.TRACE: held.packed()})
    return f"made, {100 * found:.2f}% right, recorded {100 * recorded:.2f}%"
