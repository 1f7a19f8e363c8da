"""The bench measures both loops on the same reviews, and stores what it prints."""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
import signal
import time
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from helpers import fill_disk, run_of

from t5peft.__main__ import explain, main
from t5peft.base import studies
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.measure import bench, measurements
from t5peft.methods.table import EXERCISE, runs_of
from t5peft.training import evaluation

pytestmark = pytest.mark.slow


def test_each_loop_is_measured(smoke: Study, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(smoke)
    sides = bench.measure(run, smoke, repeats=1)
    assert list(sides) == [bench.EXERCISE, bench.TRAINER, bench.OURS]
    told = [line.partition(": a step")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [f"  {x}, {side}" for x in ("warm-up", "turn 1 of 1") for side in sides]
    for figures in sides.values():
        whole = 4 * figures["step"] + figures["evaluation"]  # 64 reviews in batches of 16
        assert figures["epoch"] == pytest.approx(whole)
        assert figures["peak_bytes"] > 1e6
    assert all(0 < share < 1 for share in bench.shares({"methods": {"lora": sides}}).values())
    # parts of similar length are padded less, never more
    assert sides[bench.OURS]["operations"] <= sides[bench.EXERCISE]["operations"]


def test_a_bench_is_printed_before_it_is_stored(
    smoke: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it cannot be stored, what took so long is not lost."""
    figures = {"step": 1, "evaluation": 2, "epoch": 3, "peak_bytes": 1e6, "operations": 9}
    sides = dict.fromkeys((bench.EXERCISE, bench.OURS), figures | {"matrix_rate": 10})
    monkeypatch.setattr(bench, "measure", lambda *_: sides)
    command = ["bench", *studies.arguments(smoke).split()]
    assert main(command) == 0
    stored = measurements.bench(smoke).load()
    assert stored is not None
    assert capsys.readouterr().out.endswith(f"{measurements.bench(smoke).path}\n")
    assert stored["methods"] == dict.fromkeys(EXERCISE, sides)
    for change in ({"test_examples": 8}, {"batch_size": 8}, {"data_fingerprint": "f00d"}):
        other = measurements.bench(dataclasses.replace(smoke, **change))
        assert other.load() is None, "not that study's"
    assert main([*command, "--set", "precision=bf16"]) == 0
    capsys.readouterr()
    for first, other in (("fp32", "bf16"), ("bf16", "fp32")):
        kept = measurements.loaded(
            measurements.benches(dataclasses.replace(smoke, precision=first))
        )
        assert [record["params"]["precision"] for record in kept] == [first, other]
    other = [*command, "--set", "test_examples=8"]
    assert main(other) == 0
    assert "(it is replaced; --set study=NAME keeps both)" in capsys.readouterr().out
    fill_disk(monkeypatch)
    assert main(command) == 2
    assert "90%" in capsys.readouterr().out


def test_the_timed_reviews_are_padded_as_all_are(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, room, size = data.tokens(smoke, "test"), smoke.max_length, 4
    monkeypatch.setitem(evaluation.BATCH, "cpu", size)
    timed = bench.sample(test, room, test.ids.device)
    assert len(timed) == bench.TEST_BLOCKS * size
    order = [block.tolist() for block in evaluation.by_length(test, room, test.ids.device)]
    number_of = {text(test, i): i for i in range(len(test))}
    found = {number_of[text(timed, i)] for i in range(len(timed))}
    whole = [number for number, block in enumerate(order) if found >= set(block)]
    assert len(whole) == bench.TEST_BLOCKS, "whole blocks"
    assert set(np.diff(whole)) == {len(order) // bench.TEST_BLOCKS}, "evenly spread"


def text(tokens: data.Tokens, review: int) -> tuple[int, ...]:
    return (*tokens.ids[tokens.starts[review] : tokens.starts[review + 1]].tolist(),)


def test_the_operations_of_a_step_are_those_of_its_matrix_products(smoke: Study) -> None:
    """Full fine-tuning: 6 a weight of the encoder and token, and some for all the rest."""
    study = dataclasses.replace(smoke, train_examples=16)
    run = next(run for run in runs_of(study) if run.method == "full")
    bench.start(run, study, bench.EXERCISE)
    tokens = 16 * bench.job.train.lengths(study.max_length).max()
    encoder = bench.job.model.get_encoder().named_parameters()
    weights = sum(p.numel() for name, p in encoder if p.dim() == 2 and "embed" not in name)
    read: list[Any] = []
    embedding: Any = bench.job.model.encoder.embed_tokens
    embedding.register_forward_hook(lambda _, ids, __: read.append(ids[0]))
    assert 1 < bench.operations(bench.EXERCISE) / (6 * weights * tokens) < 3
    assert read[0].numel() == tokens, "padded to the longest, and no further"


@pytest.mark.parametrize("side", [bench.EXERCISE, bench.OURS])
def test_a_random_backbone_is_taught_to_answer_before_it_is_timed(
    smoke: Study, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(smoke)

    def answers() -> list[str]:
        job = bench.job
        return evaluation.predict(job.model, job.tokenizer, job.test, smoke.max_length)

    with monkeypatch.context() as untaught:
        untaught.setattr(bench, "teach", lambda *_: None)
        bench.start(run, smoke, side)
    assert not set(answers()) & set(data.LABELS)
    bench.start(run, smoke, side)
    assert set(answers()) <= set(data.LABELS)
    names = [name for name, p in bench.job.model.named_parameters() if p.requires_grad]
    assert names
    assert all(name.endswith((".A", ".B")) for name in names), "the backbone is frozen again"


def test_what_is_measured_is_kept_and_printed(
    smoke: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"step": 2.0, "evaluation": 240.0, "epoch": 720.0, "peak_bytes": 3e9}
    figures |= {"operations": 1e9, "matrix_rate": 2e9}
    slow = {name: 3 * value for name, value in figures.items()}
    monkeypatch.setattr(bench, "measure", lambda *_: {"exercise": slow, "ours": figures})
    assert main(["bench", *studies.arguments(smoke).split()]) == 0
    kept = measurements.bench(smoke).load()
    assert kept is not None
    assert list(kept["methods"]) == list(EXERCISE)
    printed = capsys.readouterr().out
    rows = [re.split("  +", line) for line in printed.splitlines() if line.startswith("lora ")]
    assert [row[1:] for row in rows] == [
        ["training step (s)", "6.00", "2.00", "3.00"],
        ["all test reviews (min)", "12.00", "4.00", "3.00"],
        ["whole epoch (min)", "36.00", "12.00", "3.00"],
        ["peak memory (GB)", "9.00", "3.00", "3.00"],
    ]
    assert "lora 25%" in printed
    assert "differs in the mathematics: nothing" in printed, "fp32 in both"
    assert main(["bench", *studies.arguments(smoke).split(), "--set", "precision=bf16"]) == 0
    assert "differs in the mathematics: precision (fp32" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", ["backbone=random:t5-smal", "backbone=nowhere", "data=nowhere", "train_examples=90000"]
)
def test_wrong_settings_are_one_line_and_no_broken_process(
    smoke: Study, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *studies.arguments(smoke).split(), "--set", wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert wrong.split("=")[1] in line


def test_a_side_that_lacks_memory_is_one_line(smoke: Study) -> None:
    study = dataclasses.replace(smoke, bottleneck=900_000_000)
    run = next(run for run in runs_of(study) if run.method == "adapter")
    with pytest.raises(RuntimeError) as failed, bench.started(run, study):
        pass
    assert "memory: found too little" in str(explain(failed.value))


def test_medians_are_scaled_to_all_test_reviews(smoke: Study) -> None:
    figures = bench.summary([1.0, 9.0, 2.0], [0.5, 0.4, 3.0], smoke)
    assert figures["step"] == 2.0
    assert figures["evaluation"] == 0.5 * smoke.test_examples


def test_the_exercises_side_is_in_float32(smoke: Study) -> None:
    study = dataclasses.replace(smoke, precision="bf16")
    run = run_of(study)
    for side, precision in ((bench.EXERCISE, "no"), (bench.OURS, "bf16")):
        AcceleratorState._reset_state()
        bench.start(run, study, side)
        assert bench.job.accelerator.mixed_precision == precision
    AcceleratorState._reset_state()


def test_both_processes_leave_ctrl_c_to_the_bench_and_go_with_it(smoke: Study) -> None:
    run = run_of(smoke)
    before = signal.getsignal(signal.SIGINT)
    with bench.started(run, smoke) as sides:
        for side in sides.values():
            assert side.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
            side.submit(time.sleep, 600)
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def measured() -> Any:
    """Two methods; ours is twice as fast and half as large."""
    ours = {"step": 2.0, "evaluation": 180.0, "epoch": 600.0, "peak_bytes": 4e9}
    ours["operations"] = 6e9
    theirs = {what: 2 * value for what, value in ours.items()}

    def both(rate: float) -> dict[str, dict[str, float]]:
        return {
            name: x | {"matrix_rate": rate} for name, x in (("exercise", theirs), ("ours", ours))
        }

    return {"methods": {"full": both(6e9), "lora": both(4e9)}}


def test_a_row_has_both_sides_and_their_ratio_in_the_units_of_its_name(measured: Any) -> None:
    assert [[*row.values()] for row in bench.rows(measured)][4:] == [
        ["lora", "training step (s)", 4.0, 2.0, 2.0],
        ["lora", "all test reviews (min)", 6.0, 3.0, 2.0],
        ["lora", "whole epoch (min)", 20.0, 10.0, 2.0],
        ["lora", "peak memory (GB)", 8.0, 4.0, 2.0],
    ]


def test_a_share_is_our_steps_rate_by_that_of_matrix_products(measured: Any) -> None:
    assert bench.shares(measured) == {"full": 0.5, "lora": 0.75}
    assert bench.peak(measured) == 5e9, "the median of our processes"
