"""What lies in weights/ is what it says: the stored study, its backbone, the three weight files."""

from __future__ import annotations

import pytest
import torch

from t5peft import backbone, export, methods, params, paths, prediction, runs, tokenizer
from t5peft.methods import Run

STUDY = params.load(paths.CHECKOUT / "params" / "self-contained.yaml")
RUNS = methods.runs(STUDY)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_run_of_the_default_study_is_stored_whole(run: Run) -> None:
    """A change of the training code makes it stale, which the report marks; nothing else may be."""
    assert runs.status(run, STUDY).state in ("fresh", "stale")


@pytest.mark.parametrize("method", export.FILES)
def test_the_weight_files_are_those_of_the_stored_runs(method: str) -> None:
    run = next(r for r in RUNS if r.method == method and r.implementation == "scratch")
    handed_in = torch.load(paths.CHECKOUT / "weights" / export.FILES[method], weights_only=True)
    _, stored = runs.tensors(runs.folder(run, STUDY))
    assert handed_in.keys() == stored.keys()
    assert all(torch.equal(handed_in[name], stored[name]) for name in stored)


def test_a_stored_run_labels_reviews() -> None:
    texts = ["a wonderful, moving film, one of the best of the year", "awful, boring and stupid"]
    answers = prediction.predict("self-contained/adapter-scratch-b8", texts)
    assert [answer for answer, _, _ in answers] == ["positive", "negative"]
    assert all(0.5 < probability < 1 for _, probability, _ in answers)


def test_the_backbone_is_the_one_of_its_card() -> None:
    folder = paths.CHECKOUT / STUDY.backbone
    card = backbone.card(str(folder))
    assert backbone.load(str(folder)).num_parameters() == card["parameters"]
    words = tokenizer.load(str(folder))
    assert words.tokenize("a positive review") == ["▁a", "▁positive", "▁review"]
    shards = list(folder.glob("int8-*.safetensors"))
    assert shards
    assert all(shard.stat().st_size < 16 * 2**20 for shard in shards)
