"""Reviews as people keep them are read, or refused by one line that names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from helpers import acl_imdb

from t5peft.base.errors import InputError
from t5peft.inputs import data, tables
from t5peft.inputs.data import Columns

TEXTS = {split: data.read(data.MADE_UP, split) for split in data.SPLITS}
FRAMES = {x: pd.DataFrame(pairs, columns=["text", "label"]) for x, pairs in TEXTS.items()}
WORDS = {0: "negative", 1: "positive"}


def hubs(folder: Path) -> None:
    """As the hub's branch of converted files has them."""
    for split, frame in FRAMES.items():
        (folder / "plain_text" / split).mkdir(parents=True)
        for shard, half in enumerate((frame[:150], frame[150:])):
            half.to_parquet(folder / "plain_text" / split / f"{shard:04}.parquet")


def shards(folder: Path) -> None:
    """As the hub has large files."""
    for split, frame in FRAMES.items():
        for shard, half in enumerate((frame[:150], frame[150:])):
            half.to_parquet(folder / f"{split}-{shard:05}-of-00002.parquet")


def save_to_disk(folder: Path) -> None:
    """As `datasets` saves them."""
    parts = {split: Dataset.from_pandas(frame) for split, frame in FRAMES.items()}
    DatasetDict(**parts).save_to_disk(str(folder), num_shards={"train": 2, "test": 1})


def cache(folder: Path) -> None:
    """As `datasets` keeps them beside."""
    for split, frame in FRAMES.items():
        Dataset.from_pandas(frame).save_to_disk(str(folder / "new"))
        (folder / "new" / "data-00000-of-00001.arrow").rename(folder / f"imdb-{split}.arrow")
        shutil.rmtree(folder / "new")


def kaggle(folder: Path) -> None:
    """A file a split, with a third that is not asked for, a Mac's, and a column of numbers."""
    for split, frame in FRAMES.items():
        frame.to_csv(folder / f"{split}.csv".upper())
        (folder / f"._{split}.csv").write_bytes(b"\x00\x05\x16\x07\xa3")
    FRAMES["test"][:10].to_csv(folder / "Valid.csv")


def written(ending: str, write: Callable[[pd.DataFrame, Path], object]) -> Callable[[Path], None]:
    """A file a split, its labels words in any case."""

    def make(folder: Path) -> None:
        for split, frame in FRAMES.items():
            words = [WORDS[label].title() for label in frame["label"]]
            write(frame.assign(label=words), folder / f"imdb_{split}{ending}")

    return make


def packed_by_a_mac(folder: Path) -> None:
    """A folder above an extracted aclImdb, and what a Mac packs beside."""
    acl = acl_imdb(folder / "aclImdb")
    for split in data.SPLITS:
        (acl / split / "neg" / "._0_1.txt").write_bytes(b"\x00\x05\x16\x07\xa3")
        (acl / split / ".DS_Store").write_bytes(b"\x00\xff")
    shutil.copytree(acl, folder / "__MACOSX" / "aclImdb")
    shutil.copytree(acl, folder / ".aclImdb")


LAYOUTS = {
    "the hub's converted files": hubs,
    "the hub's shards": shards,
    "save_to_disk": save_to_disk,
    "the cache of datasets": cache,
    "a CSV a split": kaggle,
    "TSV": written(".tsv", lambda frame, path: frame.to_csv(path, sep="\t", index=False)),
    "JSON lines": written(".jsonl", lambda f, path: f.to_json(path, orient="records", lines=True)),
    "JSON": written(".json", lambda frame, path: frame.to_json(path, orient="records")),
    "aclImdb of a Mac": packed_by_a_mac,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_reviews_are_read_from_every_layout(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path)
    for split in data.SPLITS:
        assert data.read(str(tmp_path), split) == TEXTS[split]


def windows(frame: pd.DataFrame, path: Path) -> None:
    """Objects a line, or one list of them, as editors on Windows keep them."""
    text = frame.to_json(orient="records", lines=path.suffix == ".jsonl")
    path.write_text(f"\n{text}\n\n", encoding="utf-8-sig", newline="\r\n")


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
@pytest.mark.parametrize("kind", [bool, float])
def test_marks_blank_lines_and_labels_of_another_kind_change_nothing(
    ending: str, kind: type, tmp_path: Path
) -> None:
    for split, frame in FRAMES.items():
        windows(frame.astype({"label": kind}), tmp_path / f"{split}{ending}")
        assert data.read(str(tmp_path), split) == TEXTS[split]


@pytest.mark.parametrize("names", [("neg", "pos"), ("positive", "Negative")])
@pytest.mark.parametrize("kind", ["parquet", "arrow", "datasets"])
def test_the_numbers_of_a_class_label_are_its_words(
    kind: str, names: tuple[str, str], tmp_path: Path
) -> None:
    """Which is 1 is the table's to say; -1 is none, and other words are named by `labels`."""
    frame = FRAMES["train"].assign(other=-1)
    words = [data.WORDS[name.lower()] for name in names]
    frame["label"] = frame["label"].map(words.index)
    label = ClassLabel(names=list(names))
    features = Features(text=Value("string"), label=label, other=label)
    table = Dataset.from_pandas(frame, features=features)
    path = tmp_path / f"train.{kind}"
    if kind == "arrow":
        table.save_to_disk(str(tmp_path))
        (tmp_path / "data-00000-of-00001.arrow").rename(path)
    else:
        table.to_parquet(path.with_suffix(".parquet"))
    if kind == "datasets":  # as the hub's are read
        held: Any = load_dataset(str(tmp_path), split="train")
        columns = tables.columns(held.data.table)
    else:
        columns = tables.read(path)
        assert data.read(str(tmp_path), "train") == TEXTS["train"]
    assert {*columns["label"]} == {*names}
    assert {*columns["other"]} == {-1}


def test_words_of_a_class_label_may_be_named(tmp_path: Path) -> None:
    features = Features(text=Value("string"), label=ClassLabel(names=["no", "yes"]))
    Dataset.from_pandas(FRAMES["train"], features=features).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match="found label 'no', expected labels 0 and 1"):
        data.read(str(tmp_path), "train")
    assert data.read(str(tmp_path), "train", Columns(labels=("no", "yes"))) == TEXTS["train"]
    with pytest.raises(InputError, match=r"label no, expected False or True, .*a word in quotes:"):
        data.read(str(tmp_path), "train", Columns(labels=("False", "True")))
    FRAMES["test"].assign(label=-1).to_csv(tmp_path / "unsup.csv")
    unlabelled = data.read(str(tmp_path), "unsupervised", Columns(labels=("no", "yes")))
    assert unlabelled == [(text, -1) for text, _ in TEXTS["test"]]


def test_a_text_of_tsv_may_hold_a_tab_or_a_line_break(tmp_path: Path) -> None:
    texts = {"a\tb": 0, "c\nd": 1}
    frame = pd.DataFrame({"text": [*texts], "label": [*texts.values()], "note": None})
    frame.to_csv(tmp_path / "train.tsv", sep="\t", index=False)
    assert dict(data.read(str(tmp_path), "train")) == texts


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_review_may_be_of_any_length(ending: str, tmp_path: Path) -> None:
    """pyarrow reads a table in blocks of a megabyte."""
    frame = pd.DataFrame({"text": ["so long " * 300_000, "short"], "label": [1, 0]})
    if ending == ".csv":
        frame.to_csv(tmp_path / "train.csv", index=False)
    else:
        frame.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    wanted = frame.sort_values("text").itertuples(index=False, name=None)
    assert sorted(data.read(str(tmp_path), "train")) == [*wanted]


def one_file(folder: Path, frame: pd.DataFrame) -> str:
    path = folder / "IMDB Dataset.csv"
    frame.to_csv(path, index=False)
    return str(path)


def test_one_table_is_halved_in_the_order_of_the_digests(tmp_path: Path) -> None:
    """As Kaggle has IMDB: whichever way the rows lie, the same reviews train."""
    frame = FRAMES["train"].rename(columns={"text": "review", "label": "sentiment"})
    frame = frame.replace({"sentiment": WORDS})[:399]
    path = one_file(tmp_path, frame)
    halves = [data.read(path, split) for split in data.SPLITS]
    assert [len(half) for half in halves] == [200, 199]
    assert sorted(halves[0] + halves[1]) == sorted(TEXTS["train"][:399])
    before = data.contents(path)
    one_file(tmp_path, frame.sample(frac=1, random_state=1))
    assert [data.read(path, split) for split in data.SPLITS] == halves
    assert data.contents(path) == before
    with pytest.raises(InputError, match="split unsupervised: found no reviews"):
        data.read(path, "unsupervised")


def test_columns_and_words_are_named(tmp_path: Path) -> None:
    frame = FRAMES["train"].rename(columns={"text": "body", "label": "stars"})
    path = one_file(tmp_path, frame.replace({"stars": {0: 1, 1: 5}}))
    named = Columns("body", "stars", ("1", "5"))
    assert sorted(x for split in data.SPLITS for x in data.read(path, split, named)) == sorted(
        TEXTS["train"]
    )
    turned = Columns("body", "stars", ("5", "1"))
    assert data.contents(path, named) != data.contents(path, turned)
    with pytest.raises(InputError, match=r"label 5, expected labels 0 and 1.*--set labels="):
        data.read(path, "train", Columns("body", "stars"))
    frame["stars"] = frame["stars"].replace({5: 1, 1: 0})  # 0 stands for neither 1 nor 5
    frame.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"label 0, expected 1 or 5, as labels says"):
        data.read(path, "train", named)
    with pytest.raises(InputError, match=r"columns body, stars, .* column grade; name it: --set l"):
        data.read(path, "train", Columns("body", "grade"))
    for stars in ([1, 5], [1.0, 5.0]):
        frame.assign(stars=stars * (len(frame) // 2)).to_csv(path, index=False)
        found = data.read(path, "train", Columns("body", "stars", ("1", "5")))
        assert data.read(path, "train", Columns("body", "stars", ("1.0", "5.0"))) == found
        assert {label for _, label in found} == {0, 1}
    frame.assign(stars=[False, True] * (len(frame) // 2)).to_csv(path, index=False)
    assert data.read(path, "train", Columns("body", "stars", ("False", "True"))) == found
    frame.rename(columns={"body": "text", "stars": " label"}).to_csv(path, index=False)
    with pytest.raises(InputError, match="; take the space out of ' label', or name it: --set lab"):
        data.read(path, "train")
    pd.DataFrame([range(9999)]).to_csv(path, index=False)
    with pytest.raises(InputError, match="columns 0, 1, 2, ") as refused:
        data.read(path, "train")
    assert len(str(refused.value)) < 1000


def two_snapshots(folder: Path) -> None:
    for commit in ("e6281661", "f0a1b2c3"):
        hubs(folder / "snapshots" / commit)


def two_kinds(folder: Path) -> None:
    hubs(folder)
    acl_imdb(folder / "aclImdb")


def a_shard_short(folder: Path) -> None:
    shards(folder)
    (folder / "train-00001-of-00002.parquet").unlink()


def no_utf_8(folder: Path) -> None:
    acl_imdb(folder)
    (folder / "train/pos/7_9.txt").write_bytes("caf\u00e9".encode("latin-1"))


def utf_16(folder: Path) -> None:
    acl_imdb(folder)
    (folder / "train/pos/7_9.txt").write_bytes("good".encode("utf-16-le"))


def latin_csv(folder: Path) -> None:
    frame = FRAMES["train"].replace({"text": {TEXTS["train"][0][0]: "caf\u00e9"}})
    frame.to_csv(folder / "train.csv", encoding="latin-1")


REFUSED = {
    "two snapshots": (
        two_snapshots,
        r"e6281661/.*\.parquet and snapshots/f0a1b2c3/.*, both of spl",
    ),
    "two kinds": (two_kinds, r"found aclImdb/train and plain_text/train/000\d.parquet, both of"),
    "a shard short": (a_shard_short, "found 1 of 2 shards of split train"),
    "another encoding": (no_utf_8, r"7_9.txt: found 'utf-8' codec .*, expected a text in UTF-8"),
    "UTF-16 without a mark": (utf_16, r"found the review 'g.x00o.*, expected texts"),
    "a table in another encoding": (
        latin_csv,
        r"train.csv: found bytes that are not UTF-8 in column text, expected a whole .csv",
    ),
    "one table": (
        lambda folder: FRAMES["train"].to_csv(folder / "IMDB.csv"),
        r"nothing of split train \(IMDB.csv\).*--set data='.*IMDB.csv' takes its halves",
    ),
    "two tables without a split": (
        lambda folder: [FRAMES["train"].to_csv(folder / f"{name}.csv") for name in "ab"],
        r"nothing of split train \(a.csv, b.csv\), expected .*aclImdb; give another --set data",
    ),
    "the other split alone": (
        lambda folder: FRAMES["test"].to_csv(folder / "test.csv"),
        r"nothing of split train \(test.csv\), expected .*aclImdb; give another --set data",
    ),
    "a table that is packed": (
        lambda folder: (folder / "train.csv.gz").touch(),
        r"found nothing of split train \(train.csv.gz\), expected a table named train",
    ),
    "JSON of another form": (
        lambda folder: (folder / "train.json").write_text('[{"text": 1}, 2]'),
        "train.json: found .*, expected a whole .json file in UTF-8",
    ),
    "a label that is missing": (
        lambda folder: (folder / "train.jsonl").write_text('{"text": "a", "label": null}'),
        "found label None, expected labels 0 and 1",
    ),
    "a line that is cut": (
        lambda folder: (folder / "train.jsonl").write_text('{"text": "a", "label": 0}\n\n{"text"'),
        "train.jsonl: found Expecting ':' delimiter: line 2 .*, expected a whole .jsonl file",
    ),
    "an empty list": (
        lambda folder: (folder / "train.json").write_text("[]"),
        "train.json: found columns none, expected a column text or review or sentence",
    ),
    "a quote that is not closed": (
        lambda folder: (folder / "train.tsv").write_text('text\tlabel\n"Wow\t1\nno\t0\n"Oh\t0\n'),
        r"train.tsv: found a tab and a line break in row 1: is a quote not closed\?, expected a wh",
    ),
    "two columns of one name": (
        lambda folder: (folder / "train.csv").write_text("text,label,text\na,0,b\n"),
        "train.csv: found two columns text, expected a whole .csv file in UTF-8; mend it",
    ),
    "neg and pos without splits": (
        lambda folder: [(folder / label).mkdir() for label in ("neg", "pos")],
        r"found nothing of split train \(neg, pos\), expected .*aclImdb; give another --set data",
    ),
    "an empty table": (lambda folder: (folder / "train.csv").touch(), "train.csv: found "),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, wanted = REFUSED[kind]
    make(tmp_path)
    with pytest.raises(InputError, match=wanted):
        data.read(str(tmp_path), "train")


@pytest.mark.parametrize(("name", "kind"), [("imdb.xlsx", " .xlsx"), ("imdb", "")])
def test_a_file_that_is_no_table_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(
        InputError, match=rf"found a file{kind}, expected one of .parquet, .arrow, "
    ):
        data.read(str(tmp_path / name), "train")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("plain_text/test/0000.parquet", "test"),
        ("train/unsup", "unsupervised"),
        ("train/test.csv", "test"),
        ("train/train_test.csv", "train"),
        ("training.csv", ""),
        ("train_test_split.csv", ""),
        ("IMDB Dataset.csv", ""),
    ],
)
def test_the_nearest_name_says_the_split(path: str, split: str, tmp_path: Path) -> None:
    assert tables.split_of(tmp_path / path, tmp_path) == split
