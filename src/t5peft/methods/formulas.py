"""Parameter counts, derived from the dimensions of a T5 by a formula.

The formulas are sympy expressions, so that the one that is printed is the one that is checked:

    added = sites x share        sites  how many places of the T5 the method changes
                                 share  what it adds at one of them

Nothing here needs torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import sympy
from sympy import Add, Expr, Integer, Mul, Symbol

from t5peft.base.errors import InputError
from t5peft.base.studies import TARGETS, in_order
from t5peft.inputs.sizes import KNOWN, SIZES, Size

if TYPE_CHECKING:
    from transformers import T5Config


Model: TypeAlias = "str | T5Config"
"""A known size by name, or a configuration."""

# --- the alphabet ------------------------------------------------------------------------------

n, b, r, d, d_kv, H, d_ff, L_e, L_d, V, K = sympy.symbols(
    "n b r d d_kv H d_ff L_e L_d V K", positive=True, integer=True
)
MEANING = {
    n: "prompt tokens",
    b: "bottleneck of an adapter",
    r: "rank of a LoRA update",
    d: "width of the model, d_model",
    d_kv: "width of an attention head",
    H: "attention heads",
    d_ff: "inner width of a feed-forward sublayer",
    L_e: "encoder layers",
    L_d: "decoder layers",
    V: "entries of the vocabulary",
    K: "buckets of relative positions",
}
# A projection is d x (H d_kv), and H d_kv need not be d: 16,384 and 1,024 in t5-11b.

SETTINGS = {"soft-prompt": ("tokens", n), "adapter": ("bottleneck", b), "lora": ("rank", r)}
"""The one setting of a method that decides its count."""

DIMENSIONS = {
    "d_model": d,
    "d_kv": d_kv,
    "num_heads": H,
    "d_ff": d_ff,
    "num_layers": L_e,
    "num_decoder_layers": L_d,
    "vocab_size": V,
    "relative_attention_num_buckets": K,
}
BUCKETS = 32  # in every released T5


def shape(model: Model) -> Size | T5Config:
    """What has a T5's dimensions and form. Raises InputError for an unknown size."""
    if isinstance(model, str) and model not in SIZES:
        raise InputError("size", repr(model), f"one of {KNOWN}", "name one of these")
    return SIZES[model] if isinstance(model, str) else model


def dimensions(model: Model) -> dict[Symbol, int]:
    """A T5's dimensions by symbol. Raises what `shape` raises."""
    size = shape(model)
    return {symbol: getattr(size, name, BUCKETS) for name, symbol in DIMENSIONS.items()}


# --- formulas ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Formula:
    """Where a method adds parameters (`rule`, in words), at how many sites, how many at each.

    tensors: the names of what it adds at a site, in the order of the share's terms; also: sites of
    another kind, with another share.
    """

    rule: str
    sites: Expr
    share: Expr
    tensors: tuple[str, ...]
    also: Formula | None = None

    @property
    def kinds(self) -> Iterator[Formula]:
        """The formula of each kind of sites."""
        yield self
        if self.also:
            yield from self.also.kinds

    @property
    def terms(self) -> dict[str, Expr]:
        """What each tensor of a site has."""
        terms = Add.make_args(self.share) if len(self.tensors) > 1 else (self.share,)
        return dict(zip(self.tensors, terms, strict=False))  # none where nothing is added

    @property
    def own(self) -> Expr:
        """sites x share, not simplified; one site is no factor."""
        if self.sites == 0:
            return Integer(0)
        if self.sites == 1:
            return self.share
        return Mul(*Mul.make_args(self.sites), *Mul.make_args(self.share), evaluate=False)

    @property
    def added(self) -> Expr:
        """The sum over all kinds."""
        terms = [kind.own for kind in self.kinds]
        return Add(*terms, evaluate=False) if len(terms) > 1 else self.own


with sympy.evaluate(False):
    ATTENTION = "attention (encoder layers have one, decoder layers two)", L_e + 2 * L_d
    FEED_FORWARD = "feed-forward sublayer", L_e + L_d
    MAPS: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("q", "k", "v"), (ATTENTION, (d,), (H, d_kv))),
        "o": (ATTENTION, (H, d_kv), (d,)),
        "wi": (FEED_FORWARD, (d,), (d_ff,)),
        "wo": (FEED_FORWARD, (d_ff,), (d,)),
    }
"""Where each target of LoRA is, and the factors of its widths: what it reads, what it writes."""


def lora(targets: Sequence[str], gated: bool = False) -> Formula:
    """LoRA's formula: a kind of sites for all targets of one place and shape.

    gated: `wi` is two maps, wi_0 and wi_1.
    """
    both = {"wi": ("wi_0", "wi_1")} if gated else {}
    alike: dict[Any, list[str]] = {}
    for target in targets:
        alike.setdefault(MAPS[target], []).extend(both.get(target, (target,)))
    formula = None
    for ((where, places), reads, writes), names in reversed(alike.items()):
        *some, last = names
        maps = f"{len(names)} projections {', '.join(some)} and" if some else "projection"
        with sympy.evaluate(False):
            sites = len(names) * places if some else places
            share = Add(Mul(*reads, r), Mul(r, *writes))
        formula = Formula(
            f"beside the {maps} {last} of each {where}", sites, share, ("A", "B"), formula
        )
    assert formula, "at one target at least"
    return formula


with sympy.evaluate(False):  # in the order in which the walk over the model finds them
    FORMULAS = {
        "full": Formula("nowhere: the T5's own parameters are trained", Integer(0), Integer(0), ()),
        "soft-prompt": Formula("the place before the encoder's input", Integer(1), n * d, ("P",)),
        "adapter": Formula(
            "behind the feed-forward sublayer of each layer",
            L_e + L_d,
            Add(d * b, b, b * d, d),
            ("W_down", "b_down", "W_up", "b_up"),
        ),
        "lora": lora(("q", "v")),
        "ia3": Formula(
            "behind the 2 projections k and v of each attention",
            2 * (L_e + 2 * L_d),
            Mul(H, d_kv),
            ("l",),
            also=Formula("inside each feed-forward sublayer", L_e + L_d, d_ff, ("l_ff",)),
        ),
    }
    PARTS: dict[str, Expr] = {
        "embedding": V * d,  # once: encoder, decoder and output share it
        "encoder self-attention": Mul(4, L_e, d, H, d_kv),  # q, k, v, o
        "encoder feed-forward": Mul(2, L_e, d, d_ff),  # wi, wo
        "decoder self-attention": Mul(4, L_d, d, H, d_kv),
        "decoder cross-attention": Mul(4, L_d, d, H, d_kv),
        "decoder feed-forward": Mul(2, L_d, d, d_ff),
        "relative positions": Mul(2, K, H),  # in the first layer of each stack
        "layer norms": Mul(Add(2 * L_e, 1, 3 * L_d, 1), d),  # a sublayer's, a stack's last
    }
    GATED: dict[str, Expr] = {
        "encoder feed-forward": Mul(3, L_e, d, d_ff),  # wi_0, wi_1, wo
        "decoder feed-forward": Mul(3, L_d, d, d_ff),
    }
"""The parameters of a T5, none of which has a bias: Raffel et al. (2020), section 2.1; and those of
T5 v1.1 and later, whose feed-forward is gated (Shazeer, 2020)."""

HEAD = {"output head": V * d}
"""What a T5 has besides whose output does not share the embedding (`tie_word_embeddings`)."""


def layout(model: Model) -> dict[str, Expr]:
    """Where a T5's parameters are."""
    form = shape(model)
    head = {} if form.tie_word_embeddings else HEAD
    return PARTS | (GATED if form.is_gated_act else {}) | head


def parts(model: Model) -> dict[str, int]:
    """How many of a T5's parameters are where."""
    return {name: value(part, dimensions(model)) for name, part in layout(model).items()}


def substitute(formula: Expr, values: Mapping[Symbol, int]) -> Expr:
    """The formula with numbers for symbols, not multiplied out."""
    with sympy.evaluate(False):
        numbers = {symbol: Integer(number) for symbol, number in values.items()}
        return cast(Expr, formula.xreplace(numbers))


def value(formula: Expr, values: Mapping[Symbol, int]) -> int:
    """The formula's number. Raises TypeError where a symbol has no value."""
    return int(substitute(formula, values).doit())


def latex(expression: Expr | int) -> str:
    """LaTeX math, in the order in which the expression was written; an int with its thousands."""
    if isinstance(expression, int):
        return rf"\text{{{expression:,}}}" if expression > 999 else str(expression)
    names = {d_kv: r"d_{\text{kv}}", d_ff: r"d_{\text{ff}}"}
    sign = r" \, " if expression.free_symbols else "times"
    return sympy.latex(expression, order="none", mul_symbol=sign, symbol_names=names)


def text(expression: Expr | int) -> str:
    """The same as plain text."""
    if isinstance(expression, int):
        return f"{expression:,}"
    return sympy.sstr(expression, order="none")


# --- derivation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One step of a derivation: the expressions that it equates, in words and as math."""

    title: str
    chain: tuple[Expr | int, ...]

    @property
    def latex(self) -> str:
        """`a = b = c` as LaTeX math, each form once."""
        return " = ".join(dict.fromkeys(map(latex, self.chain)))

    @property
    def text(self) -> str:
        """`a = b = c` as plain text, each form once."""
        return " = ".join(dict.fromkeys(map(text, self.chain)))


@dataclass(frozen=True, kw_only=True)
class Derivation(Formula):
    """A method's formula with the values of its symbols."""

    values: dict[Symbol, int]

    @property
    def simplified(self) -> Expr:
        """`added`, factored."""
        return cast(Expr, sympy.factor(self.added.doit()))

    @property
    def substituted(self) -> Expr:
        """`added` with its numbers."""
        return substitute(self.added, self.values)

    @property
    def derived(self) -> int:
        """How many parameters the method adds."""
        return value(self.added, self.values)

    @property
    def steps(self) -> list[Step]:
        """From the sites to the number."""
        where = []
        for kind in self.kinds:
            sites = substitute(kind.sites, self.values)
            where.append(Step("sites", (kind.sites, sites, value(sites, {}))))
            where.append(Step("one site adds", (kind.share,)))
        shorter = [self.simplified] if self.simplified.count_ops() < self.added.count_ops() else []
        return [
            *where,
            Step("all add", (self.added, *shorter)),
            Step("with numbers", (self.substituted,)),
            Step("derived", (self.derived,)),
        ]


def derive(method: str, model: Model, settings: Mapping[str, Any]) -> Derivation:
    """The derivation of the parameters that `method` adds to a T5.

    Raises InputError for an unknown method or size, a missing, foreign or impossible setting.
    """
    if method not in FORMULAS:
        raise InputError("method", repr(method), "one of " + ", ".join(FORMULAS), "name a method")
    formula, known = FORMULAS[method], dimensions(model)
    values = {**_setting(method, settings, known), **known}
    if "targets" in settings:
        formula = lora(in_order(settings["targets"]), shape(model).is_gated_act)
    used = formula.added.free_symbols
    return Derivation(**vars(formula), values={s: x for s, x in values.items() if s in used})


def _setting(
    method: str, settings: Mapping[str, Any], known: Mapping[Symbol, int]
) -> dict[Symbol, int]:
    """The value of the setting that decides the count, checked."""
    name, symbol = SETTINGS.get(method, ("", None))
    allowed = [*([name] if name else []), *(["alpha", "targets"] if method == "lora" else [])]
    for key in settings:
        if key not in allowed:
            expected = "settings of " + method + ": " + (", ".join(allowed) or "none")
            raise InputError(f"setting {key}", settings[key], expected, f"leave out {key}")
    if "targets" in settings and not in_order(settings["targets"]):
        expected = f"some of {', '.join(TARGETS)}, each once"
        raise InputError("targets", repr(settings["targets"]), expected, "give others")
    if symbol is None:
        return {}
    number = settings.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 10**9:
        raise InputError(name, repr(number), "a whole number from 1, below 10^9", f"give {name}")
    if symbol == n and number > known[V]:  # P starts as the first n rows of the embedding
        raise InputError(name, number, f"at most the vocabulary's {known[V]}", f"give fewer {name}")
    if symbol == b and number > known[d]:
        warnings.warn(f"{name} = {number} is wider than d_model = {known[d]}", stacklevel=2)
    return {symbol: number}
