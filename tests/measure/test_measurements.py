"""What is measured beside the runs has one store, and is fresh, stale or missing as a run is."""

from __future__ import annotations

import dataclasses
import shutil
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import edit, fill_disk

from t5peft.base import deciding, studies
from t5peft.base.deciding import Code, Definition
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import checks
from t5peft.measure import baselines, measurements
from t5peft.measure.measurements import Measured, Measurement
from t5peft.methods.table import runs_of
from t5peft.report import show
from t5peft.runs import records, store


def code(body: str) -> Code:
    """A definition of ours, before or after a change."""
    return Code(f"sha of {body}", (Definition("here.measure", "here.py:1", f"sha of {body}"),))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which measurements were made, by code that measures."""
    names: list[str] = []

    def measure(name: str) -> dict[str, Any]:
        names.append(name)
        time.sleep(0.02)
        return {"accuracy": 0.5}

    monkeypatch.setattr(baselines, "measure", measure)
    monkeypatch.setattr(deciding, "code", lambda _: code("this"))
    monkeypatch.setattr(checks, "check", lambda _: None)
    return names


class Made(Measured):
    accuracy: float


def one(study: Study, name: str = "kind/one-8", reviews: int = 8) -> Measurement[Made]:
    identity, measure = {"reviews": reviews}, ("measure.baselines.measure",)
    return Measurement(study, name, identity, Made, measure, (name,))


def test_nothing_of_the_measurement_before_is_held_in_memory(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose faster forward refers to it; ten of full size would be gigabytes."""

    class Model:
        def __init__(self) -> None:
            self.forward = self

    model = Model()
    held = weakref.ref(model)
    del model
    monkeypatch.setattr(baselines, "measure", lambda _: {"held": held()})
    assert one(smoke).figures() == {"held": None}


def test_what_is_fresh_is_not_measured_again(smoke: Study, made: list[str]) -> None:
    here = one(smoke)
    assert here.status() == records.Status("missing", "never measured")
    assert here.load() is None
    (record,) = measurements.made([here])
    assert here.status().state == "fresh"
    assert measurements.made([here]) == [record]
    assert made == ["kind/one-8"]
    assert (record["accuracy"], record.get("stale")) == (0.5, "")
    assert record.get("environment", {})["precision"] == smoke.precision


def test_other_code_makes_it_stale_and_it_is_shown_with_a_mark(
    smoke: Study, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = one(smoke)
    measurements.made([here])
    monkeypatch.setattr(deciding, "code", lambda _: code("that"))
    assert str(here.status()) == "stale: code that decides has changed since: here.measure"
    record = here.load()
    assert record is not None
    assert (record["accuracy"], show.mark(record)) == (0.5, " **(stale)**")
    assert [each.get("stale") for each in measurements.made([here])] == [""]
    assert made == ["kind/one-8", "kind/one-8"]


def coded(definitions: str) -> Code:
    """Code of these definitions, as NAME-VERSION."""
    found = (Definition(each.partition("-")[0], "", each) for each in definitions.split())
    return Code(definitions, tuple(found))


@pytest.mark.parametrize(
    ("made_by", "run", "wanted"),
    [
        ("loss-1 trial-1", True, "verified"),
        ("loss-1 trial-0", True, "stale"),  # what measures has changed, too
        ("loss-0 trial-1", True, "stale"),  # once more than since the run was made
        ("loss-1 trial-1", False, "stale"),
        ("loss-2 trial-1", False, "fresh"),
    ],
)
def test_it_is_verified_with_its_run_where_the_same_has_changed_since(
    made_by: str, run: bool, wanted: str, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    record: Any = records.made_by(coded("loss-1 loop-1"))
    here = dataclasses.replace(one(smoke), verified_run=record if run else None)
    monkeypatch.setattr(deciding, "code", lambda _: coded(made_by))
    here.store({"accuracy": 0.5})
    monkeypatch.setattr(
        deciding, "code", lambda entries=(): coded(f"loss-2 {'trial' if entries else 'loop'}-1")
    )
    assert here.status().state == wanted
    shown = here.load()
    assert shown is not None
    assert bool(shown.get("stale")) == (wanted == "stale")


def test_one_of_other_settings_is_replaced_after_a_line_that_says_so(
    smoke: Study, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    measurements.made([one(smoke)])
    other = one(smoke, reviews=9)
    assert other.load() is None
    capsys.readouterr()
    measurements.made([other])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("measure kind/one-8 ")
    assert line.endswith("reviews 8 -> 9 (it is replaced; --set study=NAME keeps both)")


@pytest.mark.parametrize("content", ["{", "[]", "{}\n", "a changed figure"])
def test_a_damaged_one_is_named_and_made_again(content: str, smoke: Study, made: list[str]) -> None:
    here = one(smoke)
    (record,) = measurements.made([here])
    changed = here.path.read_text().replace("0.5", "0.6") if "figure" in content else content
    here.path.write_text(changed)
    with pytest.raises(
        InputError, match=r"record .*one-8\.json: found (no whole rec|contents that)"
    ):
        here.load()
    assert here.status().state == "damaged"
    assert measurements.made([here]) == [record]


@pytest.mark.usefixtures("made")
def test_a_record_of_another_version_is_named(smoke: Study) -> None:
    here = one(smoke)
    here.store({"precision": 0.5})
    with pytest.raises(InputError, match="found no accuracy \\(another version's record\\)"):
        here.load()


def test_several_processes_share_the_work_and_never_make_one_twice(
    smoke: Study, made: list[str]
) -> None:
    wanted = [one(smoke, f"kind/{number}") for number in range(6)]
    with ThreadPoolExecutor(3) as pool:
        shares = [pool.submit(measurements.made, wanted) for _ in range(3)]
    assert sorted(made) == [each.name for each in wanted]
    assert [len(share.result()) for share in shares] == [6, 6, 6]


def test_what_another_process_is_at_comes_last_and_is_made_where_that_was_stopped(
    smoke: Study, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [one(smoke, f"kind/{number}") for number in range(3)]
    with ExitStack() as other:
        other.enter_context(wanted[0].lock())
        monkeypatch.setattr(time, "sleep", lambda seconds: seconds == 1 and other.close())
        measurements.made(wanted)
    assert made == ["kind/1", "kind/2", "kind/0"]


def test_a_full_disk_keeps_what_was_there(
    smoke: Study, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = one(smoke)
    (record,) = measurements.made([here])
    fill_disk(monkeypatch)
    with pytest.raises(InputError, match="No space left"):
        here.store({"accuracy": 0.9})
    assert here.load() == record


@pytest.mark.usefixtures("made")
def test_the_numbers_of_reviews_are_read_from_the_names(smoke: Study) -> None:
    for name in ("kind/a-b8-0.01-8", "kind/a-b8-0.01-12", "kind/c-12", "other/c-90"):
        one(smoke, name).store({"accuracy": 0.5})
    assert measurements.reviews(smoke, "kind") == [12, 8]
    assert measurements.reviews(dataclasses.replace(smoke, study="none"), "kind") == []


# --- what each kind's digest sees ----------------------------------------------------------------


def entries(kind: str) -> tuple[str, ...]:
    """What measures, as the shipped study has it."""
    study = studies.load(studies.DEFAULT)
    found = store.look(runs_of(study), study)
    one = {
        "tuning": lambda: measurements.trials(study, found, 9600)[0],
        "baselines": lambda: measurements.baselines(study, found.shared()),
        "retention": lambda: measurements.retention(study, 10_000, found)[0],
        "bench": lambda: measurements.bench(study),
    }[kind]()
    return one.code


CHANGES = [
    ("tuning", "measure/measurements.py", "train_examples // 10", "train_examples // 9"),
    ("tuning", "methods/lora.py", "alpha / rank", "alpha"),
    ("baselines", "measure/baselines.py", "ngram_range=(1, 2)", "ngram_range=(1, 1)"),
    ("baselines", "training/evaluation.py", "MAX_LENGTH = 5", "MAX_LENGTH = 6"),
    ("retention", "measure/retention.py", "STRETCHES = 256", "STRETCHES = 128"),
    ("retention", "pretrain/spans.py", "MEAN_SPAN = 3", "MEAN_SPAN = 4"),
    ("bench", "measure/bench.py", "LESSONS = 30", "LESSONS = 3"),
    ("bench", "base/machine.py", "return time.perf_counter() - began", "return 1.0"),
]


@pytest.mark.parametrize(("kind", "file", "old", "new"), CHANGES)
def test_a_change_of_what_measures_makes_it_stale(
    kind: str, file: str, old: str, new: str, tmp_path: Path
) -> None:
    tree, wanted = shutil.copytree(deciding.FOLDER, tmp_path / "package"), entries(kind)
    before = deciding.Reader(tree).read(wanted).digest
    assert before == deciding.digest(*wanted)
    edit(tree / "report/evidence.py", "A_MINUTE =", "A_DAY = 1\nA_MINUTE =")
    assert deciding.Reader(tree).read(wanted).digest == before, "no part of it"
    edit(tree / file, old, new)
    assert deciding.Reader(tree).read(wanted).digest != before
