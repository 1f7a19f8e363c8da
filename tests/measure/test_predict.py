"""Labels for texts, by a stored run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.measure import predict
from t5peft.runs import make
from t5peft.training import evaluation


def test_a_text_is_cleaned_as_the_reviews_were(words: Any) -> None:
    raw, clean = (predict.as_tokens([x], words).ids for x in ("A Great<br />FILM", "a great film"))
    assert raw.tolist() == clean.tolist()


def test_each_review_has_its_own_probability(smoke: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batches, and in the order given."""
    make.train_alone(run_of(smoke), smoke)
    texts = ["good", "a much longer text about a film", "bad bad", "so so", "x"]
    together = predict.predict("smoke/lora-scratch-r8", texts)
    assert not {answer for answer, _, _ in together} & {*data.LABELS}
    assert all(p >= 0.5 for _, p, _ in together), "the likelier word's"
    monkeypatch.setitem(evaluation.BATCH, "cpu", 2)
    apart = [predict.predict("smoke/lora-scratch-r8", [text])[0] for text in texts]
    for batch in (together, predict.predict("smoke/lora-scratch-r8", texts)):
        assert [(answer, text) for answer, _, text in batch] == [(a, t) for a, _, t in apart]
        assert [p for _, p, _ in batch] == pytest.approx([p for _, p, _ in apart], rel=1e-3)


def test_a_file_holds_reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table's column of texts, or a line each; a name of none is no review."""
    table, lines = tmp_path / "reviews.csv", tmp_path / "reviews.txt"
    table.write_text('id,review\n1,"good, and\nlong"\n2,bad\n')
    lines.write_text("\ufeffgood\n  so so\n", encoding="utf-8")
    assert predict.texts(["fine", str(table)]) == ["fine", "good, and\nlong", "bad"]
    assert predict.texts([str(lines)]) == ["good", "so so"]
    assert predict.texts([str(table)], "id") == ["1", "2"]
    assert predict.texts([""]) == [""]  # for `predict` to refuse
    with pytest.warns(UserWarning, match="taken for a text, as it is no file: better than revi"):
        told = predict.texts(["better than reviews.csv", "3.5", "10/10..."])
    assert told == ["better than reviews.csv", "3.5", "10/10..."]
    with pytest.raises(
        InputError, match=r"columns id, review, expected a column body; .*--text-co"
    ):
        predict.texts([str(table)], "body")
    for missing in ("review.csv", "other.TXT", "data/reviews.jsonl", "x.csv.gz", "x.md"):
        with pytest.raises(InputError, match=rf"file {missing}: found none"):
            predict.texts([missing])
    monkeypatch.chdir(tmp_path.parent)
    for folder in (f"{tmp_path}/", tmp_path.name):
        with pytest.raises(InputError, match=r"found a folder, .* give its files, as in .*/\*.txt"):
            predict.texts([folder])
    lines.write_bytes(b"good\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"reviews.txt, line 2: found bytes that are not UTF-8"):
        predict.texts(["fine", str(lines)])
    table.write_text("review\ngood\n<br />\n")
    with pytest.raises(InputError, match=r"reviews.csv, row 2: found no word"):
        predict.texts(["fine", str(table)])
    with pytest.raises(InputError, match=r"review -: found others beside it, .* leave it out"):
        predict.texts(["fine", "-"])


def test_bytes_that_are_no_text_are_refused_by_number(words: Any) -> None:
    with pytest.raises(InputError, match="review 2: found bytes that are not UTF-8"):
        predict.check(["fine", "good \udcff film"])
    utf_16 = "good film".encode("utf-16-le").decode("utf-8")
    with pytest.raises(InputError, match=r"review 2: found characters of no text, .* UTF-16"):
        predict.check(["fine", utf_16])
    predict.check(["caf\u00e9 \u2615\nnew line"])
    predict.as_tokens(["caf\u00e9 \u2615\nnew line"], words)
