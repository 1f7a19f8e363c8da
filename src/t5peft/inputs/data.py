"""IMDB reviews as token arrays, from wherever they are.

The same texts give the same tokens and the same fingerprint, whether they come from the hub, from a
folder of tables or an extracted `aclImdb/`, or from one table: reviews are put in the order of
their SHA-256, which also makes "the first n reviews" a fair sample.

Shapes: B reviews of a batch, T tokens (padded to the longest of the batch). NumPy is imported where
arrays are made: `status`, which makes none, need not wait for it.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5peft.base import deciding, files, paths
from t5peft.base.errors import InputError, first_line
from t5peft.base.studies import Study
from t5peft.inputs import hub, tables, tokenizers

if TYPE_CHECKING:
    import numpy as np
    import torch


LABELS = ("negative", "positive")
"""The word that the model must write for label 0 and for label 1."""

MADE_UP = "made-up"
SPLITS = ("train", "test")

Reviews = list[tuple[str, int]]
"""(text, label) pairs; label 0 or 1, or -1 where a review has none."""


def normalize(text: str) -> str:
    """The exercise's cleaning: lower case, each line break of HTML a space."""
    return text.lower().replace("<br />", " ")


# --- sources -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """Where in a table the reviews stand; what is left out is found by its usual name."""

    text: str = ""
    label: str = ""
    labels: tuple[str, ...] = ()  # the table's words for negative and positive


USUAL = Columns()
TEXT, LABEL = ("text", "review", "sentence"), ("label", "sentiment")
"""Usual names of the columns,"""

WORDS = {"0": 0, "1": 1, "false": 0, "true": 1, "neg": 0, "pos": 1}
WORDS |= {word: i for i, word in enumerate(LABELS)}
"""and what usually stands in them for a label."""


def columns_of(study: Study) -> Columns:
    """As the study has them."""
    return Columns(study.text_column, study.label_column, study.labels)


def read(source: str, split: str, columns: Columns = USUAL) -> Reviews:
    """The reviews of one split (train, test or unsupervised) in canonical order.

    One table without splits has its first half, in that order, for training and the other as test.
    Raises `InputError` where the source is missing, truncated or holds other labels.
    """
    place, thing = paths.local(source), f"{source}, split {split}"
    if source == MADE_UP:
        reviews = _made_up(split)
    elif place is None:
        reviews = _from_hub(source, split, columns)
    elif place.is_file():
        whole = _checked(_pairs(tables.read(place), str(place), columns), source, False)
        half = -(-len(whole) // 2)
        reviews = {"train": whole[:half], "test": whole[half:]}.get(split, [])
    else:
        reviews = []
        for path in tables.of_split(place, split):
            of_table = not path.is_dir()
            reviews += _pairs(tables.read(path), str(path), columns) if of_table else _texts(path)
    return _checked(reviews, thing, split == "unsupervised")


def _checked(reviews: Reviews, thing: str, unlabelled: bool) -> Reviews:
    if not reviews:
        raise InputError(f"data {thing}", "no reviews", "at least one", "give another data")
    odd = next((x for x, _ in reviews if not isinstance(x, str) or "\0" in x), "")
    if odd != "":
        raise InputError(f"data {thing}", f"the review {odd!r:.60}", "texts", "give IMDB data")
    allowed = (-1,) if unlabelled else (0, 1)
    wrong = {label for _, label in reviews if type(label) is not int or label not in allowed}
    if wrong:
        raise InputError(
            f"data {thing}",
            f"label {min(wrong, key=str)!r:.60}",
            "-1 (none)" if unlabelled else f"labels 0 and 1, or {' and '.join(LABELS)}",
            "give IMDB data, or name what stands for these with --set labels='[0, 1]'",
        )
    return sorted(reviews, key=lambda review: (_digest(review[0]), review[1]))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()


def _from_hub(name: str, split: str, columns: Columns) -> Reviews:
    folder = hub.fetch(name, f"{split}-*.parquet")
    try:
        from datasets import load_dataset

        table: Any = load_dataset(str(folder), split=split)
    except Exception as error:  # of many kinds
        raise InputError(
            f"data {name}", first_line(error), "whole files of reviews", f"remove {folder}"
        ) from error
    return _pairs(tables.columns(table.data.table), name, columns)


def _pairs(table: dict[str, list[Any]], thing: str, columns: Columns) -> Reviews:
    """Texts and labels of a table; a word that is no label's stays, for `_checked` to refuse."""
    texts = column(table, thing, "text_column", columns.text, TEXT)
    labels: list[Any] = column(table, thing, "label_column", columns.label, LABEL)
    names = [_word(label) for label in labels]
    known = {_word(word): i for i, word in enumerate(columns.labels)} or WORDS
    odd = {name for name in names if name not in known and name != "-1"}
    if columns.labels and odd:  # a 0 may be among them
        expected = f"{' or '.join(columns.labels)}, as labels says"
        way_out = 'name the two, a word in quotes: --set labels=\'["no", "yes"]\''
        raise InputError(f"data {thing}", f"label {min(odd):.60}", expected, way_out)
    labels = [known.get(name, label) for name, label in zip(names, labels, strict=True)]
    return list(zip(texts, labels, strict=True))


def _word(label: object) -> str:
    """A label as a word, whatever kind of number a table makes of it: 1.0 is 1."""
    return str(label).strip().lower().removesuffix(".0")


def column(
    table: dict[str, list[Any]], thing: str, setting: str, wanted: str, usual: Sequence[str]
) -> list[Any]:
    """A table's column of this name, or the first of a usual one. Raises `InputError` for none."""
    names = [wanted] if wanted else [*usual]
    found = next((name for name in names if name in table), None)
    if found is None:
        there = ", ".join(f"{name:.40}" for name in table) or "none"
        expected = f"a column {' or '.join(names)}"
        raise InputError(f"data {thing}", f"columns {there:.300}", expected, naming(table, setting))
    return table[found]


def naming(table: Iterable[str], setting: str) -> str:
    """How to name a column of none of the usual names, or of one with a space around it."""
    odd = next((name for name in table if name != name.strip()), "")
    option = setting if setting.startswith("--") else f"--set {setting}=NAME"
    return f"take the space out of {odd!r}, or " * bool(odd) + f"name it: {option}"


def _texts(folder: Path) -> Reviews:
    """Those of a split of aclImdb."""
    kinds = {folder: -1} if folder.name == "unsup" else {folder / "neg": 0, folder / "pos": 1}
    return [
        (tables.read_text(path), label)
        for kind, label in kinds.items()
        for path in sorted(kind.glob("*.txt"))
        if not path.name.startswith(".")
    ]


def _made_up(split: str) -> Reviews:
    """Reviews that a program wrote: for tests, and for a look at the whole in seconds."""
    draw = random.Random(f"t5peft {split}")
    words = (
        "awful boring dull flat lifeless messy painful poor silly weak",
        "brilliant charming clever funny great lovely moving rich superb warm",
    )
    openings = ("A film that is", "I found the story", "The cast is", "Two hours of something")
    reviews = []
    for number in range(400):
        label = number % 2
        picked = ", ".join(draw.sample(words[label].split(), 3))
        reviews.append((f"{draw.choice(openings)} {picked}.<br />Review {number}.", label))
    return [(text, -1) for text, _ in reviews] if split == "unsupervised" else reviews


# --- fingerprint -------------------------------------------------------------------------------


def fingerprint(study: Study) -> str:
    """SHA-256 of the labelled texts of both splits; "" where they are not at hand.

    Of the hub's data the study's word is taken, as stored runs are shown without them; `check`
    takes none. Raises `InputError` where the texts are not those that the study pins.
    """
    of_hub = study.data != MADE_UP and paths.local(study.data) is None
    return study.data_fingerprint if study.data_fingerprint and of_hub else check(study)


def check(study: Study) -> str:
    """`fingerprint`, of the texts themselves."""
    found, expected = contents(study.data, columns_of(study)), study.data_fingerprint
    if expected and found != expected:
        raise InputError(
            f"data {study.data}",
            f"texts with fingerprint {found[:12]}",
            f"{expected[:12]}, as the study pins them",
            "give the study's data, or --set data_fingerprint= to take these as they are",
        )
    return found


def contents(source: str, columns: Columns = USUAL) -> str:
    """Computed once, then remembered while the files, and what reads them, stay as they are."""
    folder = None if source == MADE_UP else hub.at_hand(source, *hub.REVIEWS)
    if folder is None and source != MADE_UP:
        return ""

    def compute() -> str:
        total = hashlib.sha256()
        for split in SPLITS:
            total.update(split.encode())
            reviews = read(source, split, columns)
            if len(found := {label for _, label in reviews}) < len(LABELS):
                one, thing = f"{LABELS[found.pop()]} reviews alone", f"data {source}, split {split}"
                raise InputError(thing, one, "both", "give the others too")
            if not any(normalize(text).strip() for text, _ in reviews):
                thing, none = f"data {source}, split {split}", "reviews without a word"
                raise InputError(thing, none, "texts", "name one: --set text_column=NAME")
            for text, label in reviews:
                total.update(_digest(text) + bytes([label]))
        return total.hexdigest()

    held = [folder, *folder.rglob("*")] if folder else []
    named = f"{source} {columns} {deciding.digest('inputs.data.read')}"
    return files.remembered(named, sorted(p for p in held if p.is_file()), compute)


# --- tokens ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """Tokenized reviews of one split; each is whole and without its end of sequence."""

    ids: torch.Tensor  # (all tokens of the split,), memory-mapped on a CPU
    starts: np.ndarray  # (reviews + 1,): review i is ids[starts[i] : starts[i + 1]]
    labels: np.ndarray  # (reviews,), 0 or 1

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def of(ids: Sequence[Sequence[int]], labels: np.ndarray) -> Tokens:
        """Those of some reviews, each a list of its tokens."""
        import torch

        flat = torch.tensor([token for review in ids for token in review], dtype=torch.int32)
        return Tokens(flat, starts_of(ids), labels)

    def first(self, count: int, split: str) -> Tokens:
        """The first `count` reviews. Raises `InputError` where there are fewer."""
        if count > len(self):
            raise InputError(
                f"{split}_examples",
                count,
                f"at most the {len(self):,} reviews that there are",
                f"give a smaller {split}_examples",
            )
        return Tokens(self.ids, self.starts[: count + 1], self.labels[:count])

    def picked(self, reviews: np.ndarray) -> Tokens:
        """These reviews alone, in this order."""
        import torch

        ids = [self.ids[self.starts[i] : self.starts[i + 1]] for i in reviews]
        return Tokens(torch.cat([self.ids[:0], *ids]), starts_of(ids), self.labels[reviews])

    def to(self, device: torch.device) -> Tokens:
        """The same with the tokens on a device, where its batches are made."""
        return replace(self, ids=self.ids.to(device))

    def lengths(self, max_length: int) -> np.ndarray:
        """Tokens of each review once it is cut to `max_length` and its end of sequence is set."""
        import numpy as np

        return np.minimum(np.diff(self.starts) + 1, max_length)

    def batch(
        self, picked: np.ndarray, max_length: int, placeholders: int = 0, multiple: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) ids and attention mask of the picked reviews, padded to the longest of them.

        T is rounded up to a multiple of `multiple` where `max_length` allows it. `placeholders` pad
        tokens with mask 1 stand first; they count towards `max_length`.
        """
        import torch

        device, lengths = self.ids.device, self.lengths(max_length - placeholders)[picked]
        longest = placeholders + int(lengths.max())
        width = min(max_length, -(-longest // multiple) * multiple)
        at = torch.arange(width, device=device) - placeholders  # (T,): places in a review
        starts, ends = (  # a GPU need not be waited for
            torch.from_numpy(side).to(device, non_blocking=True)[:, None]
            for side in (self.starts[picked], lengths)
        )
        ids = self.ids[(starts + at).clamp(0, len(self.ids) - 1)].long()
        ids = ids.masked_fill(at == ends - 1, EOS).masked_fill((at < 0) | (at >= ends), PAD)
        return ids, (at < ends).long()


def starts_of(reviews: Sequence[Sequence[int] | torch.Tensor]) -> np.ndarray:
    """(reviews + 1,): where each begins among all their tokens, and where the last ends."""
    import numpy as np

    return np.cumsum([0, *map(len, reviews)], dtype=np.int64)


MULTIPLE = 16
"""Few lengths of padded batches: a kernel is made, and keeps its memory, for each."""

PAD, EOS = 0, 1
"""T5's ids of <pad>, with which its decoder starts too, and of </s>."""


def tokens(study: Study, split: str) -> Tokens:
    """The study's reviews of one split: tokenized once, then read from the cache."""
    name = study.tokenizer or study.backbone
    code = deciding.digest("inputs.data.read", "inputs.tokenizers.load", "inputs.data._tokenize")
    key = hashlib.sha256(f"{code} {fingerprint(study)} {tokenizers.fingerprint(name)}".encode())
    path = paths.cache() / "tokens" / f"{key.hexdigest()[:16]}-{split}"
    try:
        whole = _cached(path)
    except (OSError, ValueError, EOFError):  # not made yet, or damaged
        reviews = read(study.data, split, columns_of(study))
        _tokenize(reviews, tokenizers.load(name), path)
        whole = _cached(path)
    return whole.first(getattr(study, f"{split}_examples"), split)


def _cached(path: Path) -> Tokens:
    import numpy as np
    import torch

    ids, starts, labels = (
        np.load(path.with_suffix(f".{part}.npy"), mmap_mode="c")  # PyTorch warns of one to read
        for part in ("ids", "starts", "labels")
    )
    return Tokens(torch.from_numpy(ids), starts, labels)


def _tokenize(reviews: Reviews, tokenizer: Any, path: Path) -> None:
    """Write a split's arrays, the labels last: where they are, the others are whole."""
    import numpy as np

    texts = [normalize(text) for text, _ in reviews]
    title = f"tokens of {path.name.rpartition('-')[2]} reviews"
    ids = tokenizers.ids(tokenizer, texts, title, add_special_tokens=False)
    arrays = {
        "ids": np.fromiter((token for review in ids for token in review), np.int32),
        "starts": starts_of(ids),
        "labels": np.array([label for _, label in reviews], np.int8),
    }
    for part, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array)
        files.write_bytes(path.with_suffix(f".{part}.npy"), content.getvalue())
