"""The command line: t5peft train | status | count | predict | ... (see `t5peft --help`)"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from t5peft.base import deciding, machine, studies
from t5peft.base.errors import WRONG_INPUT, InputError, OneLine
from t5peft.base.progress import Progress
from t5peft.base.settings import overrides
from t5peft.base.studies import TARGETS, Study
from t5peft.inputs import backbone, checks
from t5peft.measure import measurements
from t5peft.methods.table import METHODS, Run, runs_of
from t5peft.runs import launch, records, store
from t5peft.runs.identity import of_study
from t5peft.runs.records import SHOWN


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (2 after one line about wrong input)."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries are not our word
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # nor are its seconds
    machine.keep_freed_memory()
    signal.signal(signal.SIGTERM, heed)  # as Ctrl-C: no child is left behind
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by `&`
        signal.signal(signal.SIGINT, heed)
    sys.unraisablehook = lambda lost: leave() if HEARD else sys.__unraisablehook__(lost)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without Unicode
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        options = parsed(arguments)
        if "run" not in options:
            own = f"t5peft {machine.version('t5peft')}"
            print(own if options.version else parser().format_help())
            return 0
        with Progress(f"t5peft {options.command}"):
            code = options.run(options)
        if sys.stdout:  # None where it was closed
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if HEARD:
            leave()
        line = explain(error)
        if line is None:
            raise
        print(f"t5peft: {line}", file=sys.stderr)
        return WRONG_INPUT


HEARD: list[int] = []
"""Signals to stop: noted, as a library may make another error of what is raised, or lose it."""


def heed(number: int, _: object) -> NoReturn:
    """Stop, as by Ctrl-C."""
    HEARD.append(number)
    raise KeyboardInterrupt


def leave() -> NoReturn:
    """End what was interrupted at once: to unload PyTorch takes seconds."""
    for again in (signal.SIGINT, signal.SIGTERM):  # the terminal's and `side_by_side`'s
        signal.signal(again, signal.SIG_IGN)
    print(
        "t5peft: stopped; what is stored is whole, and the same command goes on with the rest",
        file=sys.stderr,
    )
    sys.stderr.flush()
    os._exit(130)


def explain(error: BaseException) -> OneLine | None:
    """The one line about wrong input, a file that cannot be used or memory that ran out."""
    if isinstance(error, OneLine):
        return error
    if machine.out_of_memory(error):
        room = "room for the model and a batch"
        return InputError("memory", "too little", room, "lower batch_size or max_length")
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename  # of a copy: the target
        thing = f"file {name}" if name else "output"
        return InputError(thing, error.strerror, "one that can be used", "give another")
    return None


# --- studies -----------------------------------------------------------------------------------


def study_of(options: argparse.Namespace) -> Study:
    """The study that the options name, with their `--set` and `--seed` on top."""
    study = studies.load(options.study, overrides(options.set))
    seed = getattr(options, "seed", None)
    return study if seed is None else studies.with_seed(study, seed)


def chosen(study: Study, names: Sequence[str]) -> list[Run]:
    """The runs of these names; all where none is given."""
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


def studies_command(options: argparse.Namespace) -> int:
    """Name the studies in params/: a line on each, and how many of its runs are stored."""
    for name, study in studies.every().items():
        with suppress(InputError):  # a list of runs that cannot be
            wanted = runs_of(study)
            stored = sum((store.folder(run, study) / records.RECORD).exists() for run in wanted)
            print(f"{name:16} {stored:2} of {len(wanted):2} runs stored  {studies.told(name)}")
    return 0


def status_command(options: argparse.Namespace) -> int:
    """Say of each run, and of what is measured beside them: fresh, verified, stale, ..."""
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
        known = record if state.state in SHOWN else None
        print_code(records.changed(known, deciding.code()) if known else [])
    return 0


def verify_command(options: argparse.Namespace) -> int:
    """Train first steps and answer reviews anew, and compare; code 1 where a run differs."""
    from t5peft.runs import verify

    from_one("--steps", options.steps)
    from_one("--reviews", options.reviews)
    study = study_of(options)
    wanted, code = chosen(study, options.only), 0
    checks.check(study)
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
    where, code = os.path.relpath(deciding.FOLDER), deciding.code()
    print(f"The code that decides ({code.digest[:12]}); *: not as the run was made with.")
    for each in code.definitions:
        print(f"{'*' if each.name in changed else ' '} {each.name:32} {where}/{each.place}")


def train_command(options: argparse.Namespace) -> int:
    """Train a study's runs that are missing or stale."""
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
    """Write stored runs as lora.pt, ..., as folders of PEFT or AdapterHub, or merged."""
    from t5peft.runs import export

    study, folder = study_of(options), Path(options.output)
    wanted = chosen(study, options.only)
    kinds = [options.format] * bool(options.format) + ["merged"] * options.merge
    for kind in kinds or ["pt"] * (not options.backbone):
        if kind == "pt":
            print(*export.export(study, folder, wanted), sep="\n")
        else:
            for line in export.in_folders(study, folder, kind, wanted):
                print(line, flush=True)
    if options.backbone:
        print(export.bare(study, folder))
    return 0


def baselines_command(options: argparse.Namespace) -> int:
    """Measure the backbone before training, and a bag of words, on a study's reviews."""
    study = study_of(options)
    (record,) = measurements.made([measurements.baselines(study, of_study(study))])
    for name in ("zero_shot_accuracy", "bag_of_words_accuracy"):
        print(f"{name}: {100 * record[name]:.2f}%")
    print(f"test_reviews_in_training: {record['test_reviews_in_training']:,}")
    return 0


def predict_command(options: argparse.Namespace) -> int:
    """Label reviews with a stored run: a line each, of answer, probability and review."""
    from t5peft.measure import predict

    if options.reviews in ([], ["-"]):
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
            if sys.stdin.isatty():
                print("a review a line; Ctrl-D ends", file=sys.stderr)
        reviews = predict.lines(sys.stdin or [])
    else:
        reviews = predict.texts(options.reviews, options.text_column)
    changes = overrides(options.set)
    for answer, probability, review in predict.predict(options.stored, reviews, changes):
        print(f"{answer}\t{probability:.3f}\t{' '.join(review.split())}")
    return 0


def count_command(options: argparse.Namespace) -> int:
    """Derive a method's parameters and count the live model's; code 1 where they differ."""
    from t5peft.methods import counting

    settings = given(options, ("tokens", "bottleneck", "rank", "targets"))
    text, equal = counting.command(options.method, options.size, settings, options.implementation)
    print(text)
    return 0 if equal else 1


def check_command(options: argparse.Namespace) -> int:
    """Look at a file that was handed in: what is what, how many, how good; code 1 unless equal."""
    if options.set and not options.study:
        parser().error("--set without the --study that it is of")
    from t5peft.measure import check

    study = study_of(options) if options.study else None
    path, method = Path(options.file), options.method
    content = check.read(path)
    asked = given(options, ("tokens", "bottleneck", "rank", "alpha", "targets"))
    said, usual = check.said(path, content), study or studies.load("assignment")
    settings = check.settings(path, said, method, usual, asked)
    model = backbone.load_on_meta(study.backbone).config if study else backbone.sized(options.size)
    handed = check.identify(path, content, method, model, settings)
    print(*handed.lines, sep="\n", flush=True)
    for line in check.accuracy(handed, method, study, settings) if study else ():
        print(line, flush=True)
    return 0 if handed.derived == handed.counted else 1


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The settings of a method that the options name."""
    return {x: getattr(options, x) for x in names if getattr(options, x) is not None}


def pretrain_command(options: argparse.Namespace) -> int:
    """Pre-train a backbone of our own, or go on with one."""
    from t5peft.pretrain import loop, settings

    print(loop.pretrain(settings.load(options.backbone, overrides(options.set))))
    return 0


def tune_command(options: argparse.Namespace) -> int:
    """Try learning rates on a held-out tenth of the training reviews."""
    from tabulate import tabulate

    from t5peft.measure import tune

    done = tune.tune(study_of(options), options.reviews, options.only or METHODS)
    decay = measurements.decay_of
    rows = [(x["run"], x["learning_rate"], decay(x), 100 * x["accuracy"]) for x in done]
    heads = ["run", "rate", "decay", "held-out accuracy, %"]
    print(tabulate(rows, heads, floatfmt=("", "g", "", ".2f")))
    return 0


def retention_command(options: argparse.Namespace) -> int:
    """Measure what the runs keep of pre-training, and know of their training reviews."""
    from tabulate import tabulate

    from t5peft.measure import retention

    found = retention.measure(study_of(options), options.reviews)
    rows = [
        (x["run"], 100 * x["train_accuracy"], x["span_loss"], x["span_loss_before"]) for x in found
    ]
    heads = ["run", "training reviews, %", "span loss", "of the bare backbone"]
    print(tabulate(rows, heads, floatfmt=("", ".2f", ".3f", ".3f")))
    return 0


def notebook_command(options: argparse.Namespace) -> int:
    """Write the report, or a chapter, as a notebook for Jupyter and papermill."""
    from t5peft.report.render import cells

    cells.write(options.chapter, Path(options.output))
    print(options.output)
    return 0


def render_command(options: argparse.Namespace) -> int:
    """Render the report to _output/: by Quarto where it is found, else without."""
    from t5peft.report.render import render

    changes = overrides(options.set) | ({"train": "partial"} if options.partial else {})
    print(render.render(options.study, changes, options.chapter, options.to))
    return 0


def bench_command(options: argparse.Namespace) -> int:
    """Time the exercise's own loop and transformers' trainer against ours, all else alike."""
    from tabulate import tabulate

    from t5peft.measure import bench

    from_one("--repeats", options.repeats)
    study = study_of(options)
    checks.check(study)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # of several the trainer would take all
    one = measurements.bench(study, options.repeats)
    one.announce()
    record = one.figures()
    print(tabulate(bench.rows(record), "keys", floatfmt=".2f"))
    environment = machine.environment(study.precision).items()
    where = ", ".join(f"{key} {value}" for key, value in environment)
    peak = "matrix rate (of bf16, or of float32 where that is lacking)"
    shares = ", ".join(f"{method} {share:.0%}" for method, share in bench.shares(record).items())
    print(f"a training step's share of the {peak}: {shares}")
    differs = "nothing" if study.precision == "fp32" else "precision (fp32 in the exercise's loop)"
    print(f"differs in the mathematics: {differs}; {where}")
    one.store(record)
    print(one.path)
    return 0


def handin_command(options: argparse.Namespace) -> int:
    """Write PDF, notebooks and weights as the exercise wants them."""
    from t5peft.report import handin

    changes = overrides(options.set)
    folder = Path(options.output)
    for path in handin.handin(options.study, changes, options.name, options.number, folder):
        print(path)
    return 0


def pack_command(options: argparse.Namespace) -> int:
    """Pack a study with all that it reads, for a machine without a network."""
    from t5peft.pretrain import settings
    from t5peft.runs import pack

    if options.set_pretrain and not options.pretrain:
        parser().error("--set-pretrain without the --pretrain that it is of")
    pretrained = None
    if options.pretrain:
        same = {key: x for key, x in overrides(options.set).items() if key == "data"}
        changes = same | overrides(options.set_pretrain)
        pretrained = settings.load(options.pretrain, changes)
        options.set = [f"backbone=weights/backbone/{pretrained.name}", *options.set]
    study = study_of(options)
    print(pack.pack(study, pretrained, Path(options.output)))
    there = [f"pretrain backbone-{pretrained.name}"] if pretrained else []
    for command in (*there, f"train {study.study}"):
        print(f"in that folder: PYTHONPATH=src python -m t5peft {command}")
    print(f"then here:      t5peft unpack {shlex.quote(options.output)}")
    return 0


def unpack_command(options: argparse.Namespace) -> int:
    """Check and store what was made in a packed folder."""
    from t5peft.runs import pack

    for line in pack.unpack(Path(options.folder), options.replace):
        print(line, flush=True)
    return 0


# --- the table of commands -----------------------------------------------------------------------

Option = tuple[tuple[str, ...], dict[str, Any]]


def option(*names: str, **how: Any) -> Option:
    """An option or argument, as argparse wants it added."""
    return names, how


STUDY = option("study", help="a YAML file or its name")
CHANGES: dict[str, Any] = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
SET = option(
    "--set", **CHANGES, help="change one setting, as in --set lora_rank=16 (again for more)"
)
SEED = option(
    "--seed",
    type=int,
    help="another seed than the study's: its runs are kept beside, in STUDY-seed-SEED",
)
SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
SIZE = option(
    "--size",
    default="t5-small",
    help="such as t5-11b, flan-t5-xl or byt5-base, or a folder with a config.json "
    "(default t5-small)",
)
OF_METHOD = (
    option("--rank", type=int, help="of LoRA (default 8)"),
    option("--bottleneck", type=int, help="of the adapter (default 8)"),
    option("--tokens", type=int, help="of the soft prompt (default 10)"),
    option("--targets", nargs="+", choices=TARGETS, help="of LoRA (default q v)"),
)
ONLY = option("--only", **SEVERAL, metavar="RUN", help="these runs, by name")
FOLDER = option("-o", "--output", required=True, help="folder")

TABLE: dict[str, dict[Callable[[argparse.Namespace], int], tuple[Option, ...]]] = {
    "train and look": {
        studies_command: (),
        train_command: (
            *(STUDY, SET, SEED, ONLY),
            option("--jobs", type=int, default=1, help="runs side by side (default 1)"),
            option(
                "--replace",
                action="store_true",
                help="train in the place of runs that are stored with other settings too",
            ),
        ),
        status_command: (
            *(STUDY, SET, SEED),
            option("--why", metavar="RUN", help="this run alone, and each definition behind it"),
        ),
        verify_command: (
            *(STUDY, SET, SEED, ONLY),
            option("--steps", type=int, default=20, help="first steps (default 20)"),
            option("--reviews", type=int, default=1000, help="to answer (default 1,000)"),
        ),
        predict_command: (
            option("stored", metavar="RUN", help="STUDY/RUN, or the run's folder"),
            option(
                "reviews", nargs="*", help="texts, or files of them; none, or -: standard input"
            ),
            option("--text-column", default="", metavar="NAME", help="of a file that is a table"),
            option(
                "--set",
                **CHANGES,
                help="where its backbone or tokenizer lies now, as in --set backbone=FOLDER",
            ),
        ),
    },
    "report": {
        render_command: (
            option("study", nargs="?", default=studies.DEFAULT, help="a YAML file or its name"),
            SET,
            option("--chapter", help="this chapter alone"),
            option(
                "--partial",
                action="store_true",
                help="train nothing; where a run is missing, show the gap",
            ),
            option("--to", choices=("pdf", "html"), default="pdf"),
        ),
        notebook_command: (
            option("chapter", nargs="?", help="a name in chapters/; none: the whole report"),
            option("-o", "--output", required=True, help="the .ipynb file"),
        ),
        export_command: (
            *(STUDY, SET, ONLY, FOLDER),
            option(
                "--format",
                choices=("pt", "peft", "adapterhub"),
                help="lora.pt, adapter.pt and prompts.pt (default), or a folder a run",
            ),
            option("--merge", action="store_true", help="LoRA runs in the backbone's weights"),
            option("--backbone", action="store_true", help="it too, for transformers to open"),
        ),
        handin_command: (
            *(STUDY, SET, FOLDER),
            option("--name", required=True, help="as in Ada_Lovelace"),
            option("--number", required=True, help="student number"),
        ),
    },
    "measure": {
        count_command: (
            option("method", choices=METHODS),
            *(SIZE, *OF_METHOD),
            option("--implementation", choices=("scratch", "library"), default="scratch"),
        ),
        check_command: (
            option("file", help="as torch.save or safetensors wrote it, or a library's folder"),
            option("--method", choices=METHODS, required=True),
            *(SIZE, *OF_METHOD),
            option("--alpha", type=float, help="of LoRA (default: the file's, or the study's)"),
            option(
                "--study", help="its backbone in place of --size; its test reviews are answered"
            ),
            SET,
        ),
        baselines_command: (STUDY, SET),
        tune_command: (
            *(STUDY, SET),
            option("--reviews", type=int, help="to train on (default 9,600, or all but a tenth)"),
            option("--only", **SEVERAL, choices=METHODS, help="these methods"),
        ),
        retention_command: (
            *(STUDY, SET),
            option("--reviews", type=int, help="to score (default 10,000, or all)"),
        ),
        bench_command: (
            *(STUDY, SET),
            option("--repeats", type=int, default=measurements.REPEATS, help="timed turns"),
        ),
    },
    "elsewhere": {
        pack_command: (
            *(STUDY, SET, SEED),
            option("--pretrain", metavar="BACKBONE", help="a YAML file of one to be made there"),
            option(
                "--set-pretrain",
                **CHANGES,
                help="change one of its settings, as in sst2=FOLDER; --set data=FOLDER is for both",
            ),
            FOLDER,
        ),
        unpack_command: (
            option("folder", help="a packed one, back from where it was trained"),
            option("--replace", action="store_true", help="in the place of what was made here"),
        ),
    },
    "backbone": {
        pretrain_command: (
            SET,
            option("backbone", help="a YAML file such as params/backbone-mini-long.yaml"),
        ),
    },
}
"""All commands, by what they are for: each is named like its function and told by its docstring."""


class Parser(argparse.ArgumentParser):
    """argparse's, with its complaints in one line as everywhere else."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise InputError("command line", message, "what the help lists", f"see {self.prog} --help")


def parser() -> Parser:
    """All commands and their options."""
    told = ["A study is a YAML file, or the name of one in params/. Wrong input: exit code 2."]
    top = Parser(
        prog="t5peft",
        usage="t5peft COMMAND ... | t5peft COMMAND --help | t5peft --version",
        description="Parameter-efficient fine-tuning of T5 on IMDB: train, check, count, report.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help=argparse.SUPPRESS)
    added = top.add_subparsers(metavar="COMMAND", help=argparse.SUPPRESS, prog="t5peft")
    for group, commands in TABLE.items():
        told.append(f"\n{group}:")
        for run, options in commands.items():
            told.append(f"  {name_of(run):10} {run.__doc__}")
            one = added.add_parser(name_of(run), description=run.__doc__, allow_abbrev=False)
            one.set_defaults(run=run, command=name_of(run))
            for names, how in options:
                one.add_argument(*names, **how)
    top.epilog = "\n".join(told)
    return top


def name_of(run: Callable[..., int]) -> str:
    """What a command is called."""
    return run.__name__.removesuffix("_command")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; texts behind an option are reviews too, which argparse does not see."""
    options, rest = parser().parse_known_args(arguments)
    if rest and isinstance(getattr(options, "reviews", None), list):
        options.reviews += [text for text in rest if text == "-" or not text.startswith("-")]
        rest = [text for text in rest if text not in options.reviews]
    if rest:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
