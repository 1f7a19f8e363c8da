"""The letters, the formulas and the counts, as text and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

from t5peft.base.studies import Study
from t5peft.inputs.sizes import CLASSIC
from t5peft.methods import formulas
from t5peft.methods.formulas import Derivation, Formula
from t5peft.methods.table import EXERCISE, facts, ours, require_ten, runs_of
from t5peft.report.counts import Checked, models, total
from t5peft.report.show import DASH, METHOD_NAMES, listed, number, run_name, setting_name, table


def notation(study: Study) -> str:
    """The letters of the study's hyper-parameters, and of dimensions with each model's values."""
    sizes = models(study)

    def chosen(name: str) -> str:
        found = {run.settings[name] for run in runs_of(study) if name in run.settings}
        return listed([*map(number, sorted(found))]) if found else DASH

    letters = {symbol: chosen(name) for name, symbol in formulas.SETTINGS.values()}
    rows = []
    for symbol, meaning in formulas.MEANING.items():
        values = {
            f"in {name}": letters.get(symbol) or f"{formulas.dimensions(model)[symbol]:,}"
            for name, model in sizes.items()
        }
        rows.append({"symbol": f"${formulas.latex(symbol)}$", "meaning": meaning, **values})
        if symbol == formulas.r:
            scale = dict.fromkeys(values, chosen("alpha"))
            rows.append({"symbol": r"$\alpha$", "meaning": "scale of a LoRA update", **scale})
    return table(rows, left=2)


def parts(study: Study) -> str:
    """Where the parameters of each model sit, by formula and number."""
    sizes = models(study)
    known = {name: formulas.parts(model) for name, model in sizes.items()}
    layout = {part: x for model in sizes.values() for part, x in formulas.layout(model).items()}
    rows = [
        {"part": part, "formula": f"${formulas.latex(formula)}$"}
        | {name: f"{x.get(part, 0):,}" for name, x in known.items()}
        for part, formula in layout.items()
    ]
    totals = {name: f"**{sum(x.values()):,}**" for name, x in known.items()}
    return table([*rows, {"part": "**all**", "formula": "", **totals}], left=2)


def derivations(study: Study, method: str) -> str:
    """How many parameters the study's from-scratch run of `method` adds, in each of the models."""
    require_ten(study)
    settings, sizes = ours(study)[method].settings, models(study).items()
    first, *others = [(name, formulas.derive(method, size, settings)) for name, size in sizes]
    text = f"For {first[0]}, step by step:\n\n{derivation(first[1])}"
    for name, other in others:
        chain = " = ".join(step.latex for step in other.steps[-2:])
        text += f"\n\nIn the study's backbone {name} the same formula, with {symbols(other)}, "
        text += f"gives ${chain}$."  # within the text, where a long one breaks
    return text


def derivation(derived: Derivation) -> str:
    """Sites and share of each kind, sum, substitution: a step a line."""
    *each, added, numbers, result = derived.steps
    lines = []
    for kind, where, share in zip(derived.kinds, each[::2], each[1::2], strict=True):
        lines += [
            f"**Sites:** {kind.rule}. Their number is ${where.latex}$.",
            f"**Parameters of one site:** {terms(kind)}${share.latex}$.",
        ]
    lines += [
        f"**Sum over the sites:** ${added.latex}$.",
        f"**Substitution,** with {symbols(derived)}: ${numbers.latex}$.",
        f"**Result:** ${result.latex}$ parameters.",
    ]
    return "\n".join(f"{place}. {line}" for place, line in enumerate(lines, 1))


def terms(derived: Formula) -> str:
    """The tensors of a site with their numbers of parameters, before their sum."""
    each = [
        re.sub(r"_(\w+)", r"_{\\text{\1}}", f"${name}$") + f" has ${formulas.latex(term)}$"
        for name, term in derived.terms.items()
    ]
    return f"{', '.join(each)}; together " if len(each) > 1 else f"${derived.tensors[0]}$ has "


def symbols(derived: Derivation) -> str:
    """The values of a derivation's symbols: `$n = 10$, $d = 512$`."""
    values = derived.values.items()
    return ", ".join(f"${formulas.latex(symbol)} = {formulas.latex(x)}$" for symbol, x in values)


def counts(checked: Iterable[Checked], formula: bool = False) -> str:
    """Derived and counted numbers side by side; `equal` says whether both pairs agree.

    formula: with what the method adds, in letters, in place of the model.
    """

    def added(item: Checked) -> str:
        derived = formulas.derive(item.run.method, item.model, item.run.settings)
        return f"${formulas.latex(derived.added)}$"

    return table(
        (
            {
                "run": run_name(facts(item.run)),
                **({"added": added(item)} if formula else {"model": item.model}),
                "added, derived": f"{item.count.derived_added:,}",
                "added, counted": f"{item.count.counted_added:,}",
                "all, derived": f"{item.count.derived_total:,}",
                "all, counted": f"{item.count.counted_total:,}",
                "equal": "yes" if item.count.equal else "**NO**",
            }
            for item in checked
        ),
        left=2,
    )


def family(study: Study) -> str:
    """What each PEFT method would add to the published T5 sizes, derived, and in percent."""
    require_ten(study)
    rows, peft = [], [ours(study)[method] for method in EXERCISE[1:]]
    for size in (name for name in CLASSIC if name.startswith("t5-")):
        bare = total(size)
        row = {"size": size, "parameters": f"{bare:,}"}
        for run in peft:
            count = formulas.derive(run.method, size, run.settings).derived
            head = f"{METHOD_NAMES[run.method]}, {setting_name(run.settings)} (%)"
            row[head] = f"{count:,} ({100 * count / (bare + count):.4f})"
        rows.append(row)
    return table(rows)
