"""What lies in weights/ is what it says: the stored study, its backbone, the three weight files."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import cells, run_of

from t5peft.base import paths, studies
from t5peft.base.settings import build, read_yaml
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, tokenizers
from t5peft.measure import measurements, predict
from t5peft.methods.table import EXERCISE, Run, ours, runs_of
from t5peft.pretrain import loop, mixture
from t5peft.pretrain.settings import BackboneParams
from t5peft.report import evidence
from t5peft.report.evidence import Evidence
from t5peft.report.show import percent, run_name
from t5peft.runs import export, records, store
from t5peft.runs.records import AS_MADE, Status
from t5peft.training import jobs

STUDY = studies.load(paths.CHECKOUT / "params" / f"{studies.DEFAULT}.yaml")
LONGER = studies.load(paths.CHECKOUT / "params" / f"{evidence.LONGER}.yaml")
SWEEP = studies.load(paths.CHECKOUT / "params" / "sweep.yaml")
SHIPPED = [(study, run) for study in (STUDY, LONGER, SWEEP) for run in runs_of(study)]
RUNS = runs_of(STUDY)
RATED = [(STUDY, run) for run in RUNS] + [
    (SWEEP, run) for run in runs_of(SWEEP) if run.method == "ia3"
]


@pytest.mark.parametrize(
    ("study", "run"), SHIPPED, ids=[f"{study.study}/{run.name}" for study, run in SHIPPED]
)
def test_every_run_of_the_shipped_studies_is_stored_whole(study: Study, run: Run) -> None:
    assert store.status(run, study).state in AS_MADE


RECORDS = [  # with other seeds, too
    path
    for study in (STUDY, LONGER, SWEEP)
    for path in sorted((paths.CHECKOUT / "weights").glob(f"{study.study}*/*/{records.RECORD}"))
]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_every_record_is_what_the_code_makes_now(path: Path) -> None:
    """Fresh or verified; told by the record's own study and seed."""
    record = records.read_run(path.parent)
    study = build(Study, record["params"], str(path))
    assert store.status(run_of(study, path.parent.name), study).state in AS_MADE


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_every_run_has_the_losses_of_its_first_steps(path: Path) -> None:
    held = store.trace(records.read_run(path.parent))
    assert len(held.losses) >= 20
    assert held.losses_by


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_no_record_tells_where_a_machine_kept_its_files(path: Path) -> None:
    settings = records.read_run(path.parent)["params"]
    assert not any(Path(settings[key]).is_absolute() for key in ("backbone", "tokenizer", "data"))


@pytest.mark.parametrize(("study", "run"), RATED, ids=[run.name for _, run in RATED])
def test_every_learning_rate_is_the_best_of_those_tried_for_its_method(
    study: Study, run: Run
) -> None:
    tried = {
        trial["learning_rate"]: trial["accuracy"]
        for trial in measurements.tried(study, store.look(runs_of(study), study))
        if trial["method"] == run.method and measurements.decay_of(trial) == study.decay
    }
    assert len(tried) >= 3
    assert run.learning_rate == max(tried, key=lambda rate: tried[rate])
    assert min(tried) < run.learning_rate < max(tried), "the grid reaches beyond on both sides"


def test_each_from_scratch_run_is_stored_with_three_seeds() -> None:
    found = {records[0]["run"]["name"]: records for records in Evidence(STUDY).seeds}
    for method in EXERCISE:
        name = ours(STUDY)[method].name
        assert [record["params"]["seed"] for record in found[name]] == [0, 1, 2]


def test_the_longer_study_and_the_sizes_are_shown_with_the_default_one() -> None:
    found = Evidence(STUDY)
    assert {record["study"] for record in found.longer} == {LONGER.study}
    assert [run.name for run in runs_of(SWEEP) if run.settings] == [
        record["run"]["name"] for record in found.sizes
    ]
    other = dataclasses.replace(STUDY, backbone="random:mini", tokenizer=STUDY.backbone)
    assert Evidence(other).longer == Evidence(other).sizes == [], "it has another backbone"
    mine = Evidence(dataclasses.replace(STUDY, study="mine"))
    assert mine.longer == mine.sizes == []


def test_a_longer_study_without_runs_to_compare_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look, missing = store.look, Status("missing", "never trained")

    def some(runs: Sequence[Run], study: Study) -> store.Found:
        found = look(runs, study)
        gone = [name for name in found if (name == "full") != full]
        return found.update(dict.fromkeys(gone, (missing, None))) or found

    monkeypatch.setattr(store, "look", some)
    for full in (True, False):  # noqa: B007
        assert Evidence(STUDY).longer == []


@pytest.mark.parametrize("method", export.FILES)
def test_the_weight_files_are_those_of_the_stored_runs(method: str) -> None:
    run = next(r for r in RUNS if r.method == method and r.implementation == "scratch")
    handed_in = torch.load(paths.CHECKOUT / "weights" / export.FILES[method], weights_only=True)
    _, stored = store.tensors(store.folder(run, STUDY))
    tensors = handed_in.pop("state_dict")
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)
    assert handed_in == {
        "method": method,
        "settings": run.settings,
        "backbone": STUDY.backbone,
        "backbone_fingerprint": backbone.fingerprint(STUDY),
    }


@pytest.mark.parametrize("method", export.FILES)
def test_readmes_recipe_puts_a_file_into_its_backbone(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (paths.CHECKOUT / "README.md").read_text()
    recipe = readme.split("```python\n")[1].split("```")[0]
    recipe = recipe.replace("lora.pt", export.FILES[method])
    made: dict[str, Any] = {}
    monkeypatch.chdir(paths.CHECKOUT)
    exec(recipe, made)
    _, stored = store.tensors(store.folder(ours(STUDY)[method], STUDY))
    trained = jobs.trained(made["model"])
    assert trained.keys() == stored.keys()
    assert all(torch.equal(trained[name], stored[name]) for name in stored)


def test_the_readme_has_the_ten_numbers() -> None:
    readme = (paths.CHECKOUT / "README.md").read_text()
    table = readme[readme.index("| run |") :].split("\n\n")[0]
    assert cells(table) == [
        [run_name(x["run"]), percent(x["best_accuracy"], 2), f"{x['parameters']['trained']:,}"]
        for x in (store.load(run, STUDY) for run in RUNS)
    ]


def test_a_stored_run_labels_reviews() -> None:
    texts = ["a wonderful, moving film, one of the best of the year", "awful, boring and stupid"]
    answers = predict.predict(f"{studies.DEFAULT}/adapter-scratch-b8", texts)
    assert [answer for answer, _, _ in answers] == ["positive", "negative"]
    assert all(0.5 < probability < 1 for _, probability, _ in answers)


IMDB = paths.CHECKOUT / "data" / "imdb"
BACKBONES = sorted((paths.CHECKOUT / "weights" / "backbone").iterdir())


@pytest.mark.parametrize("folder", BACKBONES, ids=lambda folder: folder.name)
def test_the_papers_quote_the_model_cards(folder: Path) -> None:
    card = backbone.card(str(folder))
    text = " ".join((paths.CHECKOUT / "docs" / "backbone.md").read_text().split())
    own, other = f"{card['span_loss']:.2f}", f"{card['span_loss_other_input']:.2f}"
    assert f"{own} nats a target token with its own input, {other} with another's" in text


@pytest.mark.parametrize("folder", BACKBONES, ids=lambda folder: folder.name)
def test_a_backbone_is_the_one_of_its_card(folder: Path) -> None:
    card = backbone.card(str(folder))
    assert backbone.load(str(folder)).num_parameters() == card["parameters"]
    words = tokenizers.load(str(folder))
    assert words.tokenize("a positive review") == ["▁a", "▁positive", "▁review"]
    shards = list(folder.glob("int8-*.safetensors"))
    assert shards
    assert all(shard.stat().st_size < 16 * 2**20 for shard in shards)


@pytest.mark.parametrize("folder", BACKBONES, ids=lambda folder: folder.name)
def test_the_recipe_of_a_backbone_is_shipped(folder: Path) -> None:
    """All but where the data lay."""
    shipped = read_yaml(paths.params() / f"backbone-{folder.name}.yaml")
    made_with = backbone.card(str(folder))["params"]
    assert made_with.keys() == shipped.keys()
    assert {key for key in shipped if shipped[key] != made_with[key]} <= {"data", "sst2"}


@pytest.mark.skipif(not IMDB.is_dir(), reason="IMDB is not in data/imdb")
@pytest.mark.parametrize("study", ["assignment", studies.DEFAULT, evidence.LONGER])
def test_the_texts_that_a_study_pins_are_imdbs(study: str) -> None:
    unpinned = studies.load(study, {"data": str(IMDB), "data_fingerprint": ""})
    assert data.fingerprint(unpinned) == studies.load(study).data_fingerprint


@pytest.mark.slow
@pytest.mark.skipif(not IMDB.is_dir(), reason="IMDB is not in data/imdb")
@pytest.mark.parametrize("folder", BACKBONES, ids=lambda folder: folder.name)
def test_a_backbone_reads_its_input_as_its_card_says(folder: Path, tmp_path: Path) -> None:
    """On a few other texts, so only about."""
    card = backbone.card(str(folder))
    settings = build(BackboneParams, card["params"], "card")
    words = tokenizers.load(str(folder))
    texts = [data.normalize(text) for text, _ in data.read(str(IMDB), "train")[:300]]
    stream = mixture.pack(texts, words, tmp_path)
    batch = next(iter(mixture.Spans(stream, settings, words)))
    found = loop.reading(backbone.load(str(folder)), settings, *batch)
    for name in ("span_loss", "span_loss_other_input"):
        assert found[name] == pytest.approx(card[name], abs=0.3)


def test_what_the_runs_keep_is_measured_of_all_ten() -> None:
    kept = Evidence(STUDY).kept
    assert len(kept) == 10
    assert len({(x["reviews"], x["stretches"], x["span_loss_before"]) for x in kept.values()}) == 1


@pytest.mark.parametrize("command", [["status", studies.DEFAULT], ["--help"]])
def test_what_needs_neither_torch_nor_numpy_does_not_wait_for_them(command: list[str]) -> None:
    code = (
        "import sys; from contextlib import suppress; from t5peft.__main__ import main\n"
        f"with suppress(SystemExit): main({command})\n"
        "sys.exit(len({'torch', 'numpy'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_stored_measurements_are_shown_without_the_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "tokens", None)
    monkeypatch.setattr(data, "read", None)
    found = store.look(RUNS, STUDY)
    tried = measurements.tried(STUDY, found)
    decays = {measurements.decay_of(trial) for trial in tried}
    grid = len(decays) * sum(len(measurements.GRID[x]) for x in EXERCISE)
    assert len(tried) == grid > 0
    assert len(Evidence(STUDY).kept) == 10
    assert len(measurements.loaded(measurements.benches(STUDY))) == 2
    assert measurements.baselines(STUDY, found.shared()).load()
    assert len(measurements.stored(STUDY, found)) == grid + 10 + 2 + 1


def test_what_a_report_asks_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A render of all chapters, each of which asks for records, seeds and what lies beside."""
    read: Counter[Path] = Counter()
    one = records.read

    def counted(path: Path, keys: Any) -> dict[str, Any]:
        read[path] += 1
        return one(path, keys)

    monkeypatch.setattr(records, "read", counted)
    found = Evidence(STUDY)
    for _ in range(3):
        for method in EXERCISE:
            assert found.records(method)
        assert len(found.records()) == 10
        assert len(found.everything) == len({id(record) for record in found.everything}) == 41
        assert all(found.beside.values())
    assert {*read.values()} == {1}
