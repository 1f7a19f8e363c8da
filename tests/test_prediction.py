"""Labels for texts, by a stored run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import run_named

from t5peft import evaluation, prediction, tokenizer, training
from t5peft.errors import InputError
from t5peft.params import Params


def test_a_text_is_cleaned_as_the_reviews_were(words_folder: Path) -> None:
    words = tokenizer.load(str(words_folder))
    raw, clean = (
        prediction.as_tokens([x], words).ids for x in ("A Great<br />FILM", "a great film")
    )
    assert raw.tolist() == clean.tolist()


def test_tensors_of_another_shape_or_name_are_refused(smoke: Params) -> None:
    model = training.build(run_named(smoke, "lora-scratch-r8"), smoke)
    own = {name: tensor.clone() for name, tensor in training.trained(model).items()}
    name = next(iter(own))
    for wrong, found in (
        ({k: v for k, v in own.items() if k != name}, f"no tensor {name}"),
        ({**own, "x": torch.zeros(1)}, "unexpected tensor x"),
        ({**own, name: own[name][:1]}, f"shape {name}"),
    ):
        with pytest.raises(InputError, match=found):
            prediction.put(model, wrong, "here")
    prediction.put(model, own, "here")


def test_each_review_has_its_own_probability(
    smoke: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batches, and in the order given."""
    training.train_alone(run_named(smoke, "lora-scratch-r8"), smoke)
    texts = ["good", "a much longer text about a film", "bad bad", "so so", "x"]
    together = prediction.predict("smoke/lora-scratch-r8", texts)
    monkeypatch.setitem(evaluation.BATCH, "cpu", 2)
    apart = [prediction.predict("smoke/lora-scratch-r8", [text])[0] for text in texts]
    for batch in (together, prediction.predict("smoke/lora-scratch-r8", texts)):
        assert [(answer, text) for answer, _, text in batch] == [(a, t) for a, _, t in apart]
        assert [p for _, p, _ in batch] == pytest.approx([p for _, p, _ in apart], rel=1e-3)


def test_bytes_that_are_no_text_are_refused_by_number(words_folder: Path) -> None:
    words = tokenizer.load(str(words_folder))
    with pytest.raises(InputError, match="review 2: found bytes that are not UTF-8"):
        prediction.check(["fine", "good \udcff film"])
    prediction.check(["caf\u00e9 \u2615\nnew line"])
    prediction.as_tokens(["caf\u00e9 \u2615\nnew line"], words)


def test_a_tokenizer_that_moved_is_found_by_its_new_folder(
    smoke: Params, words_folder: Path, tmp_path: Path
) -> None:
    training.train_alone(run_named(smoke, "lora-scratch-r8"), smoke)
    (before,) = prediction.predict("smoke/lora-scratch-r8", ["good"])
    moved = shutil.copytree(words_folder, tmp_path / "moved")
    (after,) = prediction.predict("smoke/lora-scratch-r8", ["good"], {"tokenizer": str(moved)})
    assert after == before
    with pytest.raises(InputError, match="backbone of run smoke/lora-scratch-r8: found"):
        prediction.load("smoke/lora-scratch-r8", {"backbone": "random:t5-small"})
    with pytest.raises(InputError, match="--set lora_rank: found a setting that the run fixes"):
        prediction.load("smoke/lora-scratch-r8", {"lora_rank": 4})
