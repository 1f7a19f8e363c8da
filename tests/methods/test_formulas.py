"""Formulas: derived step by step, by the letters of the runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import sympy
from tiny import SIZED

from t5peft.inputs.sizes import SIZES, config
from t5peft.methods import adapter, counting, formulas, ia3, lora, soft_prompt
from t5peft.methods.table import LETTER

TERMS = [  # of LoRA by its targets
    (["q", "v"], "2*(L_e + 2*L_d)*(d*r + r*H*d_kv)"),
    (["q"], "(L_e + 2*L_d)*(d*r + r*H*d_kv)"),
    (["k", "o"], "(L_e + 2*L_d)*(d*r + r*H*d_kv) + (L_e + 2*L_d)*(H*d_kv*r + r*d)"),
    (["wi", "wo"], "(L_e + L_d)*(d*r + r*d_ff) + (L_e + L_d)*(d_ff*r + r*d)"),
]
SITES = {
    **{"soft-prompt": soft_prompt.sites, "adapter": adapter.sites, "lora": lora.sites},
    "ia3": ia3.sites,
}


@pytest.mark.parametrize("size", ["t5-small", "tiny"])
@pytest.mark.parametrize("method", SITES)
def test_sites_formula_is_the_number_of_matched_modules(method: str, size: str) -> None:
    sites, formula = SITES[method](counting.hollow(size)), formulas.FORMULAS[method]
    number = sum(kind.sites for kind in formula.kinds)
    assert len(sites) == formulas.value(number, formulas.dimensions(size))


@pytest.mark.parametrize("size", SIZES)
def test_each_part_of_the_backbone_is_where_it_is_said_to_be(size: str) -> None:
    where = {
        "relative positions": "relative_attention_bias",  # before attention: it lies inside one
        "layer norms": "layer_norm",
        "embedding": "shared",
        "encoder self-attention": "encoder SelfAttention",
        "encoder feed-forward": "encoder DenseReluDense",
        "decoder self-attention": "decoder SelfAttention",
        "decoder cross-attention": "decoder EncDecAttention",
        "decoder feed-forward": "decoder DenseReluDense",
        **({} if SIZES[size].tie_word_embeddings else {"output head": "lm_head"}),
    }
    counted = dict.fromkeys(where, 0)
    for name, parameter in counting.hollow(size).named_parameters():
        part = next(p for p, words in where.items() if all(w in name for w in words.split()))
        counted[part] += parameter.numel()
    assert formulas.parts(size) == counted


def test_a_head_of_its_own_is_a_part() -> None:
    own = config("tiny", tie_word_embeddings=False)
    head = {"output head": own.vocab_size * own.d_model}
    assert formulas.parts(own) == formulas.parts("tiny") | head
    for method, settings in {"full": {}, "lora": {"rank": 2}, "soft-prompt": {"tokens": 3}}.items():
        assert counting.count(method, own, settings).equal


def test_a_number_of_sites_is_a_factor_whichever_it_is() -> None:
    for sites in range(4):
        formula = formulas.Formula("somewhere", sympy.Integer(sites), formulas.n * formulas.d, ())
        assert formula.added.subs({formulas.n: 5, formulas.d: 7}) == sites * 35


def test_derivation_goes_from_the_sites_to_the_number() -> None:
    derivation = formulas.derive("lora", "t5-small", {"rank": 8})
    assert [step.text for step in derivation.steps] == [
        "2*(L_e + 2*L_d) = 2*(6 + 2*6) = 36",
        "d*r + r*H*d_kv",
        "2*(L_e + 2*L_d)*(d*r + r*H*d_kv) = 2*r*(L_e + 2*L_d)*(d + H*d_kv)",
        "2*(6 + 2*6)*(512*8 + 8*8*64)",
        "294,912",
    ]
    assert derivation.steps[0].latex == (
        r"2 \, \left(L_{e} + 2 \, L_{d}\right) = 2 \times \left(6 + 2 \times 6\right) = 36"
    )
    assert derivation.steps[-1].latex == r"\text{294,912}"


@pytest.mark.parametrize(
    ("method", "settings"),
    [*SIZED, *(("lora", {"rank": 8, "targets": targets}) for targets, _ in TERMS)],
)
def test_every_form_of_a_formula_is_the_same_number(method: str, settings: dict[str, Any]) -> None:
    """What is printed is what is checked: read back, each printed form gives the derived number."""
    derivation = formulas.derive(method, "t5-11b", settings)
    letters: dict[str, Any] = {str(symbol): number for symbol, number in derivation.values.items()}
    for form in (derivation.added, derivation.simplified, derivation.substituted):
        assert sympy.parse_expr(formulas.text(form), letters) == derivation.derived


@pytest.mark.parametrize(("targets", "added"), TERMS)
def test_lora_has_a_term_for_each_kind_of_targets(targets: list[str], added: str) -> None:
    derivation = formulas.derive("lora", "t5-11b", {"rank": 8, "targets": targets})
    assert formulas.text(derivation.added) == added


def test_the_usual_targets_are_those_of_none_named() -> None:
    usual = formulas.derive("lora", "t5-small", {"rank": 8})
    assert formulas.derive("lora", "t5-small", {"rank": 8, "targets": ["v", "q"]}) == usual
    assert usual.rule == (
        "beside the 2 projections q and v of each attention (encoder layers have one, decoder "
        "layers two)"
    )


def test_wi_is_two_maps_of_a_gated_feed_forward() -> None:
    classic, gated = (
        formulas.derive("lora", size, {"rank": 1, "targets": ["wi"]})
        for size in ("t5-small", "flan-t5-small")
    )
    assert formulas.text(classic.sites) == "L_e + L_d"
    assert formulas.text(gated.sites) == "2*(L_e + L_d)"
    assert gated.rule == "beside the 2 projections wi_0 and wi_1 of each feed-forward sublayer"


def test_letters_are_those_of_the_runs_names() -> None:
    for name, symbol in formulas.SETTINGS.values():
        assert LETTER[name] == str(symbol)
    used = set().union(*(formula.free_symbols for formula in formulas.PARTS.values()))
    assert set(formulas.MEANING) >= used


def test_formulas_need_no_torch() -> None:
    code = (
        "import sys; from t5peft.methods import formulas;"
        "formulas.derive('lora', 't5-11b', {'rank': 8}).steps; formulas.parts('t5-11b');"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
