"""A study for a machine without a network: packed here, trained there, unpacked here.

The folder is a small checkout: the code, the study with its backbone and texts pinned by their
fingerprints, and under `inputs/` what it names, where `paths.local` finds it. So a name is there
what it is here, and nothing asks the hub. SHA256SUMS is what `sha256sum --check` reads.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import yaml

from t5peft.base import deciding, files, paths, studies
from t5peft.base.errors import InputError, first_line
from t5peft.base.studies import Study
from t5peft.inputs import backbone, checks, data, hub, tokenizers
from t5peft.methods.table import Run
from t5peft.pretrain import loop, mixture
from t5peft.pretrain.settings import BackboneParams
from t5peft.runs import records, reopen, store

SUMS, LOCK = "SHA256SUMS", "requirements.lock"
CHECKPOINTS = f"{store.CHECKPOINT}-*.pt"
LEFT = ("lock", CHECKPOINTS, "__pycache__")
"""Not packed: what belongs to a process of this machine."""


# --- here to there -----------------------------------------------------------------------------


def pack(study: Study, pretrained: BackboneParams | None, folder: Path) -> Path:
    """Write all that a study's training reads, and what is stored of it, into a new folder.

    pretrained: a backbone that is to be made there; its tokenizer, which needs no GPU, is made
    here. Raises `InputError` for a folder that holds something, and for what training would refuse.
    """
    with files.new_folder(folder) as new:
        made_there = pretrained and loop.folder(pretrained) == paths.root() / study.backbone
        if made_there and (paths.weights() / study.study).exists():
            found, way_out = "something stored, of another backbone", "give --set study=NAME"
            raise InputError(f"study {study.study}", found, "a name that is free", way_out)
        if pretrained:
            with_texts(new, pretrained)
        pinned = with_inputs(new, study, bool(made_there))  # its columns, where both read the same
        params = {study.study: studies.plain(pinned)}
        if pretrained:
            params[f"backbone-{pretrained.name}"] = asdict(pretrained)
        for name, settings in params.items():
            text = yaml.safe_dump(settings, sort_keys=False)
            files.write_text(new / "params" / f"{name}.yaml", text)
        copy_all(deciding.FOLDER, new / "src" / "t5peft")
        copy_all(paths.weights() / study.study, new / "weights" / study.study)
        if (paths.CHECKOUT / LOCK).exists():
            copy(paths.CHECKOUT / LOCK, new / LOCK)
        held = sorted(path for path in new.rglob("*") if path.is_file())
        lines = [f"{files.sha256(path)}  {path.relative_to(new)}\n" for path in held]
        files.write_text(new / SUMS, "".join(lines))
    return folder


def with_inputs(new: Path, study: Study, made_there: bool) -> Study:
    """The study pinned to its backbone and texts, once they and its tokenizer are packed."""
    pins = {"backbone_fingerprint": ""}
    if not made_there:
        checks.fetch(study)
        checks.check_backbone(study)
        pins["backbone_fingerprint"] = backbone.fingerprint(study)
        if not study.backbone.startswith(backbone.RANDOM):
            copy_model(new, study.backbone, backbone.needed(study))
    if study.tokenizer:
        copy_model(new, study.tokenizer, hub.PIECES)
    write_reviews(new, study.data, data.SPLITS, data.columns_of(study))
    pins["data_fingerprint"] = data.check(study)
    return dataclasses.replace(study, **pins)


def with_texts(new: Path, params: BackboneParams) -> None:
    """Pack what a pre-training reads: reviews, sentences, the pieces of its tokenizer."""
    write_reviews(new, params.data, ("train", "unsupervised"))
    sentences = {split: mixture.read_sst2(params.sst2, split) for split in ("train", "validation")}
    for split, pairs in sentences.items():
        write_texts(new, params.sst2, split, data.Columns("sentence"), pairs)
    texts = mixture.corpus(params.data) + [text for text, _ in sentences["train"]]
    pieces = loop.pieces_for(texts, params) / tokenizers.MODEL_FILE
    copy(pieces, new / pieces.relative_to(paths.root()))


def write_reviews(
    new: Path, name: str, splits: Sequence[str], columns: data.Columns = data.USUAL
) -> None:
    """The whole splits, unless a program writes them."""
    if name != data.MADE_UP:
        for split in splits:
            write_texts(new, name, split, columns, data.read(name, split, columns))


def write_texts(
    new: Path, name: str, split: str, columns: data.Columns, pairs: data.Reviews
) -> None:
    """Labelled texts as the hub's parquet files have them, by the study's own names."""
    from pyarrow import parquet, table

    texts, labels = ([*side] for side in zip(*pairs, strict=True))
    words = [columns.labels[label] for label in labels] if columns.labels else labels
    held = table({columns.text or "text": texts, columns.label or "label": words})
    content = io.BytesIO()
    parquet.write_table(held, content, compression="brotli")
    file = f"{split}-00000-of-00001{hub.PARQUET}"
    files.write_bytes(new / paths.packed(name) / file, content.getvalue())


def copy_model(new: Path, name: str, parts: Sequence[str]) -> None:
    """What is read of a model or a tokenizer, with the commit where it is the hub's."""
    source, target = hub.fetch(name, *parts), new / paths.packed(name)
    if source.is_file():
        copy(source, target)
        return
    for path in source.iterdir():
        if path.is_file() and any(path.match(part) for part in (*parts, "*.json")):
            copy(path, target / path.name)
    if commit := hub.commit(name, source):
        files.write_text(target / hub.COMMIT, commit)


def copy_all(source: Path, target: Path) -> None:
    """The files below a folder, if there is one, but for `LEFT`."""
    for path in source.rglob("*"):
        below = path.relative_to(source)
        if path.is_file() and not any(fnmatch(part, x) for part in below.parts for x in LEFT):
            copy(path, target / below)


def copy(source: Path, target: Path) -> None:
    """One file, itself where it is a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


# --- there to here -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Parcel:
    """What came back whole: a run, a measurement, a backbone."""

    name: str
    main: Path  # below the folder, as below our root: the file that says what it is
    store: Callable[[], str]  # which state it is in then


def unpack(folder: Path, replace: bool = False) -> Iterator[str]:
    """Store what was made in a packed folder; a line on each.

    All of it is checked before the first is stored. Raises `InputError` for what is damaged and,
    unless `replace`, where something else was made here meanwhile.
    """
    packed = sums(folder)
    parcels = [*backbones(folder), *runs(folder), *measurements(folder)]
    there = {each: files.sha256(folder / each.main) for each in parcels}
    made = [each for each in parcels if there[each] != packed.get(str(each.main))]
    for each in made:
        here = paths.root() / each.main
        may_go = (there[each], packed.get(str(each.main)))
        if here.exists() and files.sha256(here) not in may_go and not replace:
            raise InputError(
                f"{each.name} in {folder}",
                "another one here, made since the folder was packed",
                "none, or the same",
                "give --replace (it gives up those that are here)",
            )
    if not made:
        yield "nothing was finished there since it was packed"
    for where in sorted({path.parent for path in folder.glob(f"weights/*/*/{CHECKPOINTS}")}):
        yield f"begun  {where.parent.name}/{where.name}: not stored; train there goes on with it"
    for path in sorted(folder.glob("params/*.yaml")) if made else ():
        if not (here := paths.params() / path.name).exists():  # packed with --set study=NAME
            files.write_bytes(here, path.read_bytes())
            yield f"stored params/{path.name}"
    for each in made:
        yield f"stored {each.name:40} {each.store()}"


def sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file as it was packed. Raises `InputError` for another folder."""
    try:
        if not (lines := (folder / SUMS).read_text().splitlines()):
            raise ValueError("empty")
    except (OSError, ValueError) as error:  # or bytes that are no text
        found = f"no {SUMS} ({getattr(error, 'strerror', 'damaged')})"
        raise InputError(f"folder {folder}", found, "what t5peft pack wrote", "name that") from None
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}


def runs(folder: Path) -> Iterator[Parcel]:
    """The stored runs. Raises `InputError` for one that is damaged or in another's place."""
    for path in sorted(folder.glob(f"weights/*/*/{records.RECORD}")):
        where, name = path.parent, f"{path.parent.parent.name}/{path.parent.name}"
        record, _ = store.whole(where)
        run, study = reopen.settings(record, f"record of run {name}")
        own = f"{study.study}/{run.name}"
        if own != name:
            raise InputError(f"run {where}", f"the record of {own}", "its own", "train it again")
        yield Parcel(name, path.relative_to(folder), partial(store_run, where, run, study))


def store_run(where: Path, run: Run, study: Study) -> str:
    """Store a run here; its state."""
    store.copy(where, store.folder(run, study))
    try:
        return str(store.status(run, study))
    except InputError as error:  # backbone or texts here are others by now
        return str(error)


def measurements(folder: Path) -> Iterator[Parcel]:
    """What was measured beside the runs. Raises `InputError` for a damaged record."""
    for path in sorted(folder.glob("weights/*/**/*.json")):
        main = path.relative_to(folder)
        beside_run = (path.parent / records.RECORD).exists()
        if not beside_run and main.parts[1] != studies.BACKBONES:
            records.read(path, {"identity", "source"})
            name = str(main.relative_to("weights").with_suffix(""))
            yield Parcel(name, main, partial(store_file, path, main))


def store_file(path: Path, main: Path) -> str:
    """Store one file here."""
    files.write_bytes(paths.root() / main, path.read_bytes())
    return "as it was measured there"


def backbones(folder: Path) -> Iterator[Parcel]:
    """The backbones that were made. Raises `InputError` for one that is damaged."""
    for path in sorted(folder.glob(f"weights/{studies.BACKBONES}/*/{backbone.CARD}")):
        where, main = path.parent, path.relative_to(folder)
        found = backbone.contents(where, (*hub.WEIGHTS, *hub.PIECES))
        try:
            said = str(json.loads(path.read_text())["fingerprint"])
        except (ValueError, LookupError, TypeError) as error:
            said = first_line(error)
        if said != found:
            expected = f"{said[:12]}, as {path.name} has it"
            thing = f"backbone {where}"
            raise InputError(thing, f"fingerprint {found[:12]}", expected, "copy it again")
        yield Parcel(f"backbone {where.name}", main, partial(store_backbone, where, main.parent))


def store_backbone(where: Path, main: Path) -> str:
    """Store a backbone here, whole or not at all."""
    new = files.beside(paths.root() / main)
    copy_all(where, new)
    return str(files.put_in_place(new, paths.root() / main))
