"""The sizes are the published ones."""

from __future__ import annotations

from t5peft.inputs import backbone
from t5peft.inputs.sizes import CLASSIC, KNOWN, LATER, SIZES, V1_1, config
from t5peft.methods import formulas


def test_the_published_sizes_have_the_published_counts() -> None:
    """The totals that the released checkpoints hold."""
    totals = {
        "t5-small": 60_506_624,
        "t5-base": 222_903_552,
        "t5-large": 737_668_096,
        "t5-3b": 2_851_598_336,
        "t5-11b": 11_307_321_344,
    }
    for size, total in totals.items():
        assert backbone.load_on_meta(size).num_parameters() == total
    assert [name for name in CLASSIC if name.startswith("t5-")] == [*totals]


def test_the_later_sizes_have_the_counts_of_the_released_checkpoints() -> None:
    """All parameters, a shared one once; byt5-large, -xl and -xxl as the paper rounds them."""
    totals = {
        "t5-v1_1-small": 76_961_152,
        "t5-v1_1-base": 247_577_856,
        "t5-v1_1-large": 783_150_080,
        "t5-v1_1-xl": 2_849_757_184,
        "t5-v1_1-xxl": 11_135_332_352,
        "mt5-small": 300_176_768,
        "mt5-base": 582_401_280,
        "mt5-large": 1_229_581_312,
        "mt5-xl": 3_742_619_648,
        "mt5-xxl": 12_921_057_280,
        "byt5-small": 299_637_760,
        "byt5-base": 581_653_248,
    }
    totals |= {name.replace("t5-v1_1", "flan-t5"): x for name, x in totals.items() if "v1" in name}
    found = {name: sum(formulas.parts(name).values()) for name in SIZES if name not in CLASSIC}
    assert {name: found[name] for name in totals} == totals
    rounded = {"byt5-large": "1.23", "byt5-xl": "3.74", "byt5-xxl": "12.91"}
    assert found.keys() - totals.keys() == rounded.keys()
    assert {name: f"{found[name] / 1e9:.2f}" for name in rounded} == rounded
    assert len(found) == len(LATER) * len(V1_1)


def test_a_configuration_has_the_form_of_its_size() -> None:
    for name, known in SIZES.items():
        made = config(name)
        form = (made.is_gated_act, made.tie_word_embeddings)
        assert form == (known.is_gated_act, known.tie_word_embeddings)
        assert form == ((False, True) if name in CLASSIC else (True, False))


def test_the_form_is_no_part_of_a_random_backbones_fingerprint() -> None:
    assert repr(SIZES["tiny"]) == (
        "Size(d_model=32, d_kv=8, d_ff=64, num_heads=4, num_layers=2, num_decoder_layers=2, "
        "vocab_size=8128)"
    )


def test_a_line_names_every_size() -> None:
    for name in SIZES:
        family, _, size = name.rpartition("-")
        assert name in KNOWN or (family in KNOWN and f"-{size}" in KNOWN)
