"""What the runs learned, from their stored tensors alone, and beside the backbone where it is here.

An update Delta = (alpha / r) A B is a sum of r directions sigma_i u_i v_i^T, of which direction i
has the share sigma_i^2 / ||Delta||^2 of the energy; Hu et al. (2022), section 7, look at it so. All
norms are Frobenius norms. Nothing here has a unit; shares are of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import median

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor
from torch.nn.functional import normalize

from t5peft.inputs import hub, tokenizers
from t5peft.methods.table import Run, ours, runs_of
from t5peft.report import plots, show
from t5peft.report.drawings import FAINT, WIDTH
from t5peft.report.evidence import Evidence
from t5peft.runs import store
from t5peft.runs.records import Record

SAMPLE = 1000
"""Tokens, and random directions, whose nearest tokens are sought: for all it takes gigabytes."""

# --- of tensors ----------------------------------------------------------------------------------


def singular_values(left: Tensor, right: Tensor) -> Tensor:
    """Those of left (m, r) times right (r, n), the largest first: (r,)."""
    return torch.linalg.svdvals(left.double() @ right.double())[: left.shape[1]]


def energy(singular: Tensor) -> Tensor:
    """The share of each direction in the squared norm: (r,), of sum 1."""
    return singular.square() / singular.square().sum()


def factors(tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The two thin matrices of each LoRA or adapter of a run, by site, sites in their order.

    Of LoRA A (d_in, r) and B (r, d_out), which PEFT stores transposed; of our adapter W_up (d, b)
    and W_down (b, d).
    """
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(".A"):
            found[name.removesuffix(".A")] = tensor, tensors[f"{name[:-1]}B"]
        elif ".lora_A." in name:
            other = tensors[name.replace(".lora_A.", ".lora_B.")]
            found[name.partition(".lora_A.")[0]] = tensor.T, other.T
        elif name.endswith(".up.weight"):
            site = name.removesuffix(".up.weight")
            found[site] = tensor, tensors[f"{site}.down.weight"]
    return {site: found[site] for site in sorted(found, key=place)}


def place(site: str) -> tuple[bool, str, list[str], int]:
    """Where a site comes: by stack, sublayer, projection, and then by layer (from 0)."""
    stack, _, layer, _, sublayer, *inner = site.split(".")
    return stack == "decoder", sublayer, inner, int(layer)


KINDS = {
    "SelfAttention": "{} self",
    "EncDecAttention": "cross",
    "DenseReluDense": "{} feed-forward",
}


def kind(site: str) -> str:
    """A site's name in all layers: `encoder self, q`, `cross, v`; `encoder` for an adapter."""
    stack, *_, name, projection = site.split(".")
    return f"{KINDS[name].format(stack)}, {projection}" if name in KINDS else stack


def nearest(rows: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row (n, d) the largest cosine with a row of the embedding (V, d), and which: (n,)."""
    return (normalize(rows) @ normalize(embedding).T).max(dim=1)


def usual(embedding: Tensor) -> tuple[float, float]:
    """The median cosine with the nearest token: of a token (with another), of a random direction.

    embedding: (V, d). Of some `SAMPLE` of either.
    """
    tokens = embedding[:: -(-len(embedding) // SAMPLE)]
    others = (normalize(tokens) @ normalize(embedding).T).topk(2).values[:, 1]  # the first: itself
    drawn = torch.randn(SAMPLE, embedding.shape[1], generator=torch.Generator().manual_seed(0))
    return others.median().item(), nearest(drawn, embedding)[0].median().item()


# --- of a study ----------------------------------------------------------------------------------


class Learned:
    """What a study's runs have stored; where one is missing, what needs it raises `Missing`."""

    def __init__(self, found: Evidence) -> None:
        self.found, self.study, self.ours = found, found.study, ours(found.study)
        self.words = found.study.tokenizer or found.study.backbone

    def tensors(self, run: Run) -> dict[str, Tensor]:
        """The trained tensors of a run."""
        list(self.found.records(run.method))  # trains it, or is refused, where it is missing
        return store.tensors(store.folder(run, self.study))[1]

    @cached_property
    def loras(self) -> dict[str, dict[str, Tensor]]:
        """The singular values (r,) of each LoRA update, by the run's name and by site."""
        found = {}
        for run in (run for run in runs_of(self.study) if run.method == "lora"):
            scale, pairs = run.settings["alpha"] / run.settings["rank"], factors(self.tensors(run))
            found[run.name] = {site: scale * singular_values(*pair) for site, pair in pairs.items()}
        return found

    @cached_property
    def sizes(self) -> dict[str, float]:
        """||Delta|| / ||W|| of our LoRA by site, or ||Delta|| where the backbone is not here."""
        model, updates = self.found.backbone, self.loras[self.ours["lora"].name]
        whole = {s: model.get_parameter(f"{s}.weight").norm().item() for s in updates if model}
        return {site: x.norm().item() / whole.get(site, 1.0) for site, x in updates.items()}

    @cached_property
    def adapters(self) -> dict[str, float]:
        """||W_down W_up||, (d, d), of our adapters by site."""
        pairs = factors(self.tensors(self.ours["adapter"]))
        return {site: singular_values(*pair).norm().item() for site, pair in pairs.items()}

    @cached_property
    def embedding(self) -> Tensor | None:
        """The rows of E that are tokens, (V, d); None where backbone or tokenizer is not here."""
        if not (model := self.found.backbone) or not hub.at_hand(self.words, *hub.PIECES):
            return None
        return model.shared.weight.detach()[: len(tokenizers.load(self.words))]

    @cached_property
    def near(self) -> Near | None:
        """How near our prompt's rows are to tokens; None where there is no `embedding`."""
        (prompt,) = self.tensors(self.ours["soft-prompt"]).values()
        if self.embedding is None:
            return None
        (cosines, tokens), others = nearest(prompt, self.embedding), usual(self.embedding)
        pieces = tokenizers.load(self.words).convert_ids_to_tokens(tokens[:10].tolist())
        names = [f"`` {piece.lstrip('▁') or piece} ``" for piece in pieces]
        sides = (rows.norm(dim=1).tolist() for rows in (prompt, self.embedding))
        norms = [show.span(side, "{:.0f}".format) for side in sides]
        return Near(cosines.tolist(), names, *others, *norms)

    def left(self) -> tuple[int, float]:
        """Steps of our prompt, and the share of its start that weight decay alone would leave."""
        (record,) = show.only(self.found.ten(), name=self.ours["soft-prompt"].name)
        settings, rate = record["params"], record["run"]["learning_rate"]
        steps = record["best_epoch"] * -(-settings["train_examples"] // settings["batch_size"])
        return steps, (1 - rate * show.adamw_default("weight_decay")) ** steps

    def prompt_rms(self) -> tuple[float | None, float]:
        """The root mean square of P's entries at its start, the backbone's, and as it is stored."""
        (rows,) = self.tensors(self.ours["soft-prompt"]).values()
        model = self.found.backbone
        return rms(model.shared.weight[: len(rows)]) if model else None, rms(rows)


def rms(entries: Tensor) -> float:
    """The root mean square of a tensor's entries."""
    return entries.detach().square().mean().sqrt().item()


@dataclass(frozen=True)
class Near:
    """Cosines with the nearest token of each row, of a token, and of a random direction."""

    cosines: list[float]
    names: list[str]  # of the nearest tokens of the first ten rows
    token: float
    chance: float
    norms: str  # of the rows
    token_norms: str

    @property
    def words(self) -> int:
        """How many rows have half of their squared norm along a token."""
        return sum(cosine**2 > 0.5 for cosine in self.cosines)


def firsts(updates: dict[str, Tensor]) -> list[float]:
    """The first direction's share of the energy at each site."""
    return [energy(singular)[0].item() for singular in updates.values()]


def by_kind(sizes: dict[str, float]) -> str:
    """The range of each kind of sites: `1.2 to 1.3 (encoder self, q) and 0.52 (cross, v)`."""
    found = [(name, [sizes[site] for site in sites]) for name, sites in groupby(sizes, key=kind)]
    return show.listed([f"{show.span(x, '{:#.2g}'.format)} ({name})" for name, x in found])


# --- in a table and a figure ---------------------------------------------------------------------


def table(learned: Learned, records: Sequence[Record]) -> str:
    """The LoRA runs: what their first direction carries, how large they are, what they score."""
    rows = []
    for record in show.only(records, method="lora"):
        updates = learned.loras[record["run"]["name"]]
        first = firsts(updates)
        rows.append(
            {
                "LoRA": show.run_name(record["run"]).partition(", ")[2] + show.mark(record),
                "norm, median": f"{median(x.norm().item() for x in updates.values()):#.3g}",
                "energy, median": show.percent(median(first)),
                "energy, least": show.percent(min(first)),
                "test accuracy": show.percent(record["best_accuracy"]),
            }
        )
    return show.table(rows)


def figure(learned: Learned) -> Figure:
    """Our LoRA's spectra and sizes, and our adapters' sizes, by site."""
    drawn, beside = Figure(figsize=(WIDTH, 2.1), layout="constrained"), bool(learned.found.backbone)
    left, middle, right = drawn.subplots(1, 3, width_ratios=(1, 1, 0.7))
    _spectra(left, [*learned.loras[learned.ours["lora"].name].values()])
    _by_site(middle, learned.sizes, "lora")
    ratio = r"$\|\Delta\|" + r"\,/\,\|W\|" * beside + "$"
    middle.set(title=f"LoRA: size, {ratio}", xscale="log")
    middle.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    middle.xaxis.set_major_formatter("{x:g}")
    middle.xaxis.set_minor_formatter("")
    if beside:
        middle.axvline(1, color=FAINT, lw=0.8, ls=":")
    _by_site(right, learned.adapters, "adapter")
    right.set(title=r"adapter: $\|W_\mathrm{down} W_\mathrm{up}\|$")
    right.set_xlim(0, 1.1 * max(learned.adapters.values()))
    return drawn


def _spectra(ax: Axes, updates: Sequence[Tensor]) -> None:
    """A thin line a site, the median over the sites thick; dotted, what equal ones would have."""
    shares = 100 * torch.stack([energy(singular) for singular in updates])  # (sites, r)
    numbers, colour = range(1, shares.shape[1] + 1), plots.COLOURS["lora"]
    for line in shares.tolist():
        ax.plot(numbers, line, color=colour, lw=0.5, alpha=0.45)
    middle = shares.quantile(0.5, dim=0).tolist()
    ax.plot(numbers, middle, color=colour, lw=1.8, marker=plots.MARKERS["lora"], ms=3.5)
    at, label = (1, middle[0]), f"{middle[0]:.1f}%"
    ax.annotate(label, at, (6, 0), textcoords="offset points", color=colour, weight="bold")
    ax.axhline(100 / len(middle), color=FAINT, lw=0.8, ls=":")
    ax.set(title="LoRA: energy (%)", xlabel="direction", ylim=(0, 103), xticks=[1, len(middle)])


def _by_site(ax: Axes, sizes: dict[str, float], method: str) -> None:
    """A row a site, the sites of a kind below one another, its first layer on top."""
    colour, marker, at, ticks = plots.COLOURS[method], plots.MARKERS[method], 0, {}
    for name, sites in groupby(sizes, key=kind):
        found = [sizes[site] for site in sites]
        ax.plot(found, range(at, at + len(found)), color=colour, marker=marker, ms=3, lw=0.7)
        ticks[name] = at + (len(found) - 1) / 2
        at += len(found) + 1
    ax.set_yticks([*ticks.values()], [*ticks])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(at - 1, -1)
