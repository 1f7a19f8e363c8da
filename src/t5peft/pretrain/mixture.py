"""What a backbone is pre-trained on: reviews as spans to fill in, and sentences to label.

Text: IMDB's training and unlabelled reviews, lower-cased as the task has them, and the sentences of
SST-2 with their label word as target. The test part is not read; IMDB repeats a few of its reviews.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from t5peft.base import files, machine, paths
from t5peft.base.errors import InputError, first_line
from t5peft.inputs import data, hub, tokenizers
from t5peft.pretrain import spans
from t5peft.pretrain.settings import BackboneParams


def corpus(source: str) -> list[str]:
    """Every review that may be seen: training and unlabelled ones, not the test part."""
    return [
        data.normalize(text)
        for split in ("train", "unsupervised")
        for text, _ in data.read(source, split)
    ]


def read_sst2(source: str, split: str = "train") -> data.Reviews:
    """SST-2 sentences with label 0 or 1, from the hub or a folder of parquet files.

    Raises `InputError` where there are none, or other columns or labels.
    """
    try:
        from datasets import load_dataset

        folder = paths.local(source) or hub.fetch(source, f"{split}-*.parquet")
        table: Any = load_dataset(str(folder), split=split)
    except Exception as error:  # of many kinds, by what is missing
        raise InputError(
            f"SST-2 {source}",
            error.found if isinstance(error, InputError) else first_line(error),
            "a folder of parquet files, or the name of a data set of the hub",
            "give --set sst2=FOLDER",
        ) from error
    way_out = "give SST-2 in the hub's layout"
    if not {"sentence", "label"} <= set(table.column_names):
        found = "columns " + ", ".join(table.column_names)
        raise InputError(f"SST-2 {source}", found, "columns sentence and label", way_out)
    labels = set(table["label"])
    if not labels <= {0, 1}:
        found = f"label {min(labels - {0, 1}, key=str)}"
        raise InputError(f"SST-2 {source}, split {split}", found, "labels 0 and 1", way_out)
    return [(row["sentence"].strip().lower(), row["label"]) for row in table]


def pack(texts: list[str], tokenizer: Any, pieces: Path) -> np.ndarray:
    """All texts as one stream of token ids, a text's end marked by </s>; kept in `pieces`."""
    path = pieces / "stream.npy"
    if not path.exists():
        found = tokenizers.ids(tokenizer, texts, "tokens of all reviews")
        stream = np.concatenate([np.array(ids, np.uint16) for ids in found])
        files.write(path, lambda file: np.save(file, stream))
    return np.load(path, mmap_mode="r")


@dataclass(eq=False)
class Spans(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches (B, input), (B, target) from number `first` on, as a loader takes them.

    Each is drawn from the seed, the number of its pass over the text and its place in that alone.
    Raises `InputError` where the text may not fill one, as a pass begins at any token of a passage.
    """

    stream: np.ndarray
    params: BackboneParams
    tokenizer: Any
    first: int = 0

    def __post_init__(self) -> None:
        passage = spans.lengths(self.params.input_length).text
        there = len(self.stream) - passage + 1
        enough("input_length", passage, there, "tokens of text")
        enough("batch_size", self.params.batch_size, there // passage, "passages of text")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream, seed, batch_size = self.stream, self.params.seed, self.params.batch_size
        size = spans.lengths(self.params.input_length)
        number = sweep = 0
        while True:
            draw = np.random.default_rng([seed, sweep])
            offset = int(draw.integers(size.text))
            starts = offset + size.text * draw.permutation((len(stream) - offset) // size.text)
            for place, picked in enumerate(blocks(starts, batch_size)):
                if number >= self.first:
                    own = np.random.default_rng([seed, 0, sweep, place])
                    yield spans.corrupt_batch(stream, picked, size, self.tokenizer, own)
                number += 1
            sweep += 1


def sst2_batches(
    pairs: data.Reviews, params: BackboneParams, tokenizer: Any, first: int = 0, wide: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of sentences (B, T) and label words (B, 2) from number `first` on.

    Padded to the longest of each, or, `wide`, all to `sst2_length`. Raises `InputError` where the
    sentences do not fill one.
    """
    enough("sst2_batch_size", params.sst2_batch_size, len(pairs), "sentences")
    texts = tokenizer(
        [text for text, _ in pairs],
        max_length=params.sst2_length,
        truncation=True,
        padding="max_length",
        return_tensors="pt",
    )["input_ids"]
    labels = [data.LABELS[label] for _, label in pairs]
    targets = tokenizer(labels, return_tensors="pt")["input_ids"]

    def order(sweep: int) -> np.ndarray:
        return np.random.default_rng([params.seed, 1, sweep]).permutation(len(texts))

    def batch(block: np.ndarray) -> tuple[Tensor, Tensor]:
        picked = torch.from_numpy(block)
        longest = int(texts[picked].ne(data.PAD).sum(dim=1).max())
        return texts[picked, : None if wide else longest], targets[picked]

    drawn = (block for sweep in count() for block in blocks(order(sweep), params.sst2_batch_size))
    return map(batch, islice(drawn, first, None))


def blocks(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`size` entries at a time; what is left over is not used."""
    return (order[at : at + size] for at in range(0, len(order) - size + 1, size))


def enough(setting: str, wanted: int, there: int, things: str) -> None:
    """Refuse a batch that is larger than all there is: it would never come."""
    if wanted > there:
        raise InputError(setting, wanted, f"at most the {there} {things}", f"lower {setting}")


def end_with_parent(worker: int) -> None:
    """As it has the training's lock, too."""
    machine.end_with_parent()


def ahead(batches: Spans) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches, drawn ahead by a worker, so that no GPU waits for them.

    They lie where a GPU copies from without a detour, if there is one.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=1,
        prefetch_factor=8,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=end_with_parent,
    )
    return iter(loader)
