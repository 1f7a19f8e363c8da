"""The command line: t5peft train | status | count | predict | ... (see `t5peft --help`)"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from t5peft.base import deciding, machine, studies
from t5peft.base.errors import InputError, OneLine
from t5peft.base.progress import Progress
from t5peft.base.settings import build, overrides, read_yaml, study_file
from t5peft.base.studies import Study
from t5peft.inputs import checks
from t5peft.inputs.sizes import SIZES
from t5peft.measure import measurements
from t5peft.methods.table import METHODS, Run, runs_of
from t5peft.runs import launch, records, store
from t5peft.runs.records import SHOWN

WRONG_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (2 after one line about wrong input)."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries are not our word
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # nor are its seconds
    machine.keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no child is left behind
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without Unicode
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        options = parser().parse_args(arguments)
        with Progress(f"t5peft {options.command}"):
            code = options.run(options)
        if sys.stdout:  # None where it was closed
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"t5peft: {line}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        for again in (signal.SIGINT, signal.SIGTERM):  # the terminal's and `side_by_side`'s
            signal.signal(again, signal.SIG_IGN)
        print(
            "t5peft: stopped; what is stored is whole, and the same command goes on with the rest",
            file=sys.stderr,
        )
        sys.stderr.flush()
        os._exit(130)  # at once: to unload PyTorch takes seconds


def explain(error: Exception) -> OneLine | None:
    """The one line about wrong input, a file that cannot be used or memory that ran out."""
    if isinstance(error, OneLine):
        return error
    if machine.out_of_memory(error):
        room = "room for the model and a batch"
        return InputError("memory", "too little", room, "lower batch_size or max_length")
    if isinstance(error, OSError) and error.strerror:
        thing = f"file {error.filename}" if error.filename else "output"
        return InputError(thing, error.strerror, "one that can be used", "give another")
    return None


# --- studies -----------------------------------------------------------------------------------


def study_of(options: argparse.Namespace) -> Study:
    """The study that the options name, with their `--set` and `--seed` on top."""
    study = studies.load(options.study, overrides(options.set))
    seed = getattr(options, "seed", None)
    return study if seed is None else studies.with_seed(study, seed)


def study_to_run(options: argparse.Namespace) -> Study:
    """`study`, for a command that reads its backbone and its reviews: they must be the study's."""
    study = study_of(options)
    checks.check(study)
    return study


def chosen(study: Study, names: Sequence[str]) -> list[Run]:
    """The runs of these names; all ten where none is given."""
    known = {run.name: run for run in runs_of(study)}
    for name in names:
        if name not in known:
            raise InputError(
                f"run {name}",
                "no such run",
                "one of " + ", ".join(known),
                "name a run of the study",
            )
    return [run for name, run in known.items() if not names or name in names]


def status_command(options: argparse.Namespace) -> int:
    """Print the runs, and what is measured beside them; `--why`, one with the code behind it."""
    study = study_of(options)
    wanted = chosen(study, [options.why] if options.why else [])
    found = store.look(wanted, study)
    for run in wanted:
        state, _ = found[run.name]
        print(f"{run.number:2}  {run.name:27} {state.state:8} {state.reason}")
    if not options.why:
        beside = measurements.stored(study, found)
        kinds = ((one.name.partition("/")[0], one.status()) for one in beside)
        for (kind, state), count in Counter(kinds).items():
            name = f"{kind} ({count})" if count > 1 else kind
            print(f"    {name:27} {state.state:8} {state.reason}")
    else:
        state, record = found[options.why]
        print_code(records.changed(record, deciding.code()) if state.state in SHOWN else [])
    return 0


def trace_command(options: argparse.Namespace) -> int:
    """Make what stored runs lack of a trace."""
    from t5peft.runs import verify

    from_one("--steps", options.steps)
    study = study_to_run(options)
    for line in verify.complete(study, chosen(study, options.only), options.steps):
        print(line, flush=True)
    return 0


def verify_command(options: argparse.Namespace) -> int:
    """Compare stored runs with what the code makes now; 1 if one differs or cannot be compared."""
    from t5peft.runs import verify

    from_one("--steps", options.steps)
    from_one("--reviews", options.reviews)
    study = study_to_run(options)
    wanted, code = chosen(study, options.only), 0
    for same, line in verify.check(study, wanted, options.steps, options.reviews):
        print(line, flush=True)
        code = code if same else 1
    return code


def from_one(name: str, value: int) -> None:
    """Refuse a number below 1."""
    if value < 1:
        raise InputError(name, value, "a number from 1", "give another number")


def print_code(changed: Sequence[str]) -> None:
    """Print the definitions that decide a run's result, those that have changed with a star."""
    where = os.path.relpath(deciding.FOLDER)
    print(f"The code that decides ({deciding.source()[:12]}); *: not as the run was made with.")
    for each in deciding.code().definitions:
        print(f"{'*' if each.name in changed else ' '} {each.name:32} {where}/{each.place}")


def train_command(options: argparse.Namespace) -> int:
    """Train what is missing or stale, after saying so."""
    from_one("--jobs", options.jobs)
    if options.jobs > 1 and machine.launched():
        raise InputError(
            "--jobs", options.jobs, "1, as several processes share one run here", "leave it out"
        )
    from t5peft.runs import schedule

    study = study_of(options)
    with launch.one_voice():
        code = schedule.train(chosen(study, options.only), study, options.jobs, options.replace)
        launch.leave()
        return code


def export_command(options: argparse.Namespace) -> int:
    """Write lora.pt, adapter.pt and prompts.pt from a study's stored runs."""
    from t5peft.report import export

    study = study_of(options)
    for path in export.export(study, Path(options.output)):
        print(path)
    return 0


def baselines_command(options: argparse.Namespace) -> int:
    """Measure what a study's runs stand beside."""
    (record,) = measurements.made([measurements.baselines(study_of(options))])
    for name in ("zero_shot_accuracy", "bag_of_words_accuracy"):
        print(f"{name}: {100 * record[name]:.2f}%")
    return 0


def predict_command(options: argparse.Namespace) -> int:
    """Label each review with a stored run."""
    from t5peft.measure import predict

    reviews = options.reviews
    if reviews in ([], ["-"]):
        if isinstance(sys.stdin, io.TextIOWrapper):  # bytes that are no text are named
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
            if sys.stdin.isatty():
                print("a review a line; Ctrl-D ends", file=sys.stderr)
        reviews = [line.strip() for line in sys.stdin or []]
    changes = overrides(options.set)
    for answer, probability, review in predict.predict(options.stored, reviews, changes):
        print(f"{answer}\t{probability:.3f}\t{' '.join(review.split())}")
    return 0


def count_command(options: argparse.Namespace) -> int:
    """Print a method's formula and check it on the live model; 1 if they differ."""
    from t5peft.methods import counting

    given = {name: getattr(options, name) for name in ("tokens", "bottleneck", "rank")}
    settings = {name: value for name, value in given.items() if value is not None}
    text, equal = counting.command(options.method, options.size, settings, options.implementation)
    print(text)
    return 0 if equal else 1


def pretrain_command(options: argparse.Namespace) -> int:
    """Pre-train a backbone of our own, or go on with one."""
    from t5peft.pretrain import loop
    from t5peft.pretrain.settings import BackboneParams

    values = read_yaml(study_file(options.backbone))
    changes = overrides(options.set)
    settings = build(BackboneParams, values, options.backbone, changes)
    print(loop.pretrain(settings))
    return 0


def tune_command(options: argparse.Namespace) -> int:
    """Try learning rates on held-out training reviews, and print what each gave."""
    from tabulate import tabulate

    from t5peft.measure import tune

    done = tune.tune(study_of(options), options.reviews, options.only or METHODS)
    rows = [[x["run"], f"{x['learning_rate']:g}", f"{100 * x['accuracy']:.2f}"] for x in done]
    print(tabulate(rows, ["run", "rate", "held-out accuracy, %"], disable_numparse=True))
    return 0


def retention_command(options: argparse.Namespace) -> int:
    """Measure what a study's runs keep of pre-training, and know of their reviews."""
    from tabulate import tabulate

    from t5peft.measure import retention

    rows = [
        [
            x["run"],
            f"{100 * x['train_accuracy']:.2f}",
            *(f"{x[key]:.3f}" for key in ("span_loss", "span_loss_before")),
        ]
        for x in retention.measure(study_of(options), options.reviews)
    ]
    heads = ["run", "training reviews, %", "span loss", "of the bare backbone"]
    print(tabulate(rows, heads, disable_numparse=True))
    return 0


def notebook_command(options: argparse.Namespace) -> int:
    """Write the report, or one chapter, as a notebook for papermill."""
    from t5peft.report.render import notebook

    notebook.write(options.chapter, Path(options.output))
    print(options.output)
    return 0


def render_command(options: argparse.Namespace) -> int:
    """Render the report: by Quarto where it is found, else by the project's own path."""
    from t5peft.report.render import render

    changes = overrides(options.set) | ({"train": "partial"} if options.partial else {})
    print(render.render(options.study, changes, options.chapter, options.to))
    return 0


def bench_command(options: argparse.Namespace) -> int:
    """Time the exercise's own loop against ours, and print the ratios."""
    from tabulate import tabulate

    from t5peft.report import speed

    from_one("--repeats", options.repeats)
    study = study_to_run(options)
    one = measurements.bench(study, options.repeats)
    one.announce()
    record = one.figures()
    heads = ["method", "s, or MB", "exercise", "ours", "ratio"]
    print(tabulate(speed.rows(record), heads, floatfmt=".2f"))
    environment = machine.environment(study.precision).items()
    where = ", ".join(f"{key} {value}" for key, value in environment)
    peak = "matrix rate (of bf16, or of float32 where that is faster)"
    print(f"a training step's share of the {peak}: {speed.shares(record)}")
    differs = "nothing" if study.precision == "fp32" else "precision (fp32 in the exercise's loop)"
    print(f"differs in the mathematics: {differs}; {where}")
    one.store(record)
    print(one.path)
    return 0


def handin_command(options: argparse.Namespace) -> int:
    """Write what the exercise wants uploaded."""
    from t5peft.report import handin

    changes = overrides(options.set)
    folder = Path(options.output)
    for path in handin.handin(options.study, changes, options.name, options.number, folder):
        print(path)
    return 0


# --- options -----------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse's, with its complaints in one line as everywhere else."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise InputError("command line", message, "what the help lists", f"see {self.prog} --help")


def option(*names: str, **how: Any) -> argparse.ArgumentParser:
    """An option (or argument) that several commands have: a parent of theirs."""
    added = Parser(add_help=False)
    added.add_argument(*names, **how)
    return added


STUDY = "a YAML file or its name"
STUDIED = option("study", help=STUDY)
SET = option(
    "--set",
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="change one setting, as in --set lora_rank=16 (again for more)",
)
SEED = option(
    "--seed",
    type=int,
    help="another seed than the study's: its runs are kept beside, in STUDY-seed-SEED",
)
ONLY = option("--only", nargs="+", action="extend", default=[], metavar="RUN", help="these runs, by name")
STEPS = option("--steps", type=int, default=20, help="first steps (default 20)")
FOLDER = option("-o", "--output", required=True, help="folder")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(
        prog="t5peft",
        description="Parameter-efficient fine-tuning of T5 on IMDB: train, check, count, report.",
        epilog="A study is a YAML file, or the name of one in params/. Wrong input: exit code 2.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_runs, add_measurements, add_papers):
        add(commands)
    return top


def command(
    commands: Any, run: Callable[..., int], text: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """A command named like its function, which its options are given to."""
    name = run.__name__.removesuffix("_command")
    added = commands.add_parser(name, help=text, description=text, parents=parents)
    added.set_defaults(run=run, command=name)
    return added


def add_runs(commands: Any) -> None:
    """The commands that make, show and use runs."""
    text = "Train a study's runs that are missing or stale."
    added = command(commands, train_command, text, STUDIED, SET, SEED, ONLY)
    added.add_argument("--jobs", type=int, default=1, help="runs side by side (default 1)")
    text = "train in the place of runs that are stored with other settings too"
    added.add_argument("--replace", action="store_true", help=text)

    text = "Say of each run, and of what is measured beside them: fresh, verified, stale, ..."
    added = command(commands, status_command, text, STUDIED, SET, SEED)
    text = "this run alone, and the code that decides it: each definition, and which have changed"
    added.add_argument("--why", metavar="RUN", help=text)

    text = "Verify stored runs: train first steps anew, answer reviews anew, compare both."
    added = command(commands, verify_command, text, STUDIED, SET, SEED, ONLY, STEPS)
    text = "test reviews to answer (default 1,000)"
    added.add_argument("--reviews", type=int, default=1000, help=text)

    text = "Make what `verify` compares with, for runs that were stored before it was kept."
    command(commands, trace_command, text, STUDIED, SET, SEED, ONLY, STEPS)

    text = "Label reviews with a stored run: a line each, of answer, probability and review."
    added = command(commands, predict_command, text)
    added.add_argument("stored", metavar="RUN", help="STUDY/RUN, or the run's folder")
    added.add_argument("reviews", nargs="*", help="texts; none, or -: lines of standard input")
    text = "where the run's backbone or tokenizer lies now, as in --set backbone=FOLDER"
    added.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)

    text = "Write lora.pt, adapter.pt, prompts.pt from stored runs."
    command(commands, export_command, text, STUDIED, SET, FOLDER)

    added = command(commands, pretrain_command, "Pre-train a backbone, or go on with one.", SET)
    added.add_argument("backbone", help="a YAML file such as params/backbone-mini.yaml")


def add_measurements(commands: Any) -> None:
    """The commands that count, and that measure what stands beside the runs."""
    text = "Derive a method's parameters and count the live model's."
    added = command(commands, count_command, text)
    added.add_argument("method", choices=METHODS)
    added.add_argument("--size", default="t5-small", help=f"{', '.join(SIZES)} (default t5-small)")
    added.add_argument("--rank", type=int, help="of LoRA (default 8)")
    added.add_argument("--bottleneck", type=int, help="of the adapter (default 8)")
    added.add_argument("--tokens", type=int, help="of the soft prompt (default 10)")
    added.add_argument("--implementation", choices=("scratch", "library"), default="scratch")

    text = "Measure the backbone before training, and a bag of words, on a study's reviews."
    command(commands, baselines_command, text, STUDIED, SET)

    text = "Try learning rates on a held-out tenth of the training reviews."
    added = command(commands, tune_command, text, STUDIED, SET)
    added.add_argument("--reviews", type=int, default=9600, help="to train on (default 9,600)")
    added.add_argument("--only", nargs="+", action="extend", choices=METHODS, help="these methods")

    text = "Measure what the stored runs keep of pre-training, and know of their training reviews."
    added = command(commands, retention_command, text, STUDIED, SET)
    text = "training reviews to score each run on (default 10,000)"
    added.add_argument("--reviews", type=int, default=10_000, help=text)

    text = "Time the exercise's own loop against ours, on the same model, data and settings."
    added = command(commands, bench_command, text, STUDIED, SET)
    text = f"timed turns (default {measurements.REPEATS})"
    added.add_argument("--repeats", type=int, default=measurements.REPEATS, help=text)


def add_papers(commands: Any) -> None:
    """The commands that write the report, its notebooks and what is handed in."""
    added = command(commands, notebook_command, "Write the report or a chapter as a notebook.")
    added.add_argument("chapter", nargs="?", help="a name in chapters/; none: the whole report")
    added.add_argument("-o", "--output", required=True, help="the .ipynb file")

    added = command(commands, render_command, "Render the report to _output/.", SET)
    added.add_argument("study", nargs="?", default=studies.DEFAULT, help=STUDY)
    added.add_argument("--chapter", help="this chapter alone")
    text = "train nothing; where a run is missing, show the gap"
    added.add_argument("--partial", action="store_true", help=text)
    added.add_argument("--to", choices=("pdf", "html"), default="pdf")

    text = "Write PDF, notebooks and weights as the exercise wants them."
    added = command(commands, handin_command, text, STUDIED, SET, FOLDER)
    added.add_argument("--name", required=True, help="as in Ada_Lovelace")
    added.add_argument("--number", required=True, help="student number")


if __name__ == "__main__":
    sys.exit(main())
