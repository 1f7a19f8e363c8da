"""Every parameter formula against the live model, over all sizes, methods and implementations."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from itertools import combinations
from typing import Any

import pytest
from tiny import EVERY, SETTINGS, SIZED

from t5peft.__main__ import main
from t5peft.base.errors import InputError
from t5peft.base.studies import TARGETS
from t5peft.inputs.sizes import CLASSIC, SIZES, config
from t5peft.methods import counting, formulas, lora

SUBSETS = [some for many in range(1, 7) for some in combinations(TARGETS, many)]
SMALL = ("tiny", "mini", "t5-small")  # with every setting; the others with a few
BUILT = [
    pytest.param(
        size,
        method,
        settings,
        implementation,
        id="-".join(map(str, (size, method, *settings.values(), implementation))),
        marks=[] if size in SMALL else pytest.mark.slow,
    )
    for size in CLASSIC
    for method, settings in SIZED
    for implementation in (["scratch"] if method == "full" else ["scratch", "library"])
    if size in SMALL or set(settings.values()) <= {13}
]


@pytest.mark.parametrize(("size", "method", "settings", "implementation"), BUILT)
def test_derived_is_counted(
    size: str, method: str, settings: dict[str, Any], implementation: str
) -> None:
    counted = counting.count(method, size, settings, implementation)
    assert counted.derived_added == counted.counted_added
    assert counted.derived_total == counted.counted_total
    assert counted.equal


@pytest.mark.parametrize(
    ("method", "settings", "added", "total"),
    [
        ("full", {}, 0, 60_506_624),
        ("soft-prompt", {"tokens": 10}, 5_120, 60_511_744),
        ("adapter", {"bottleneck": 8}, 104_544, 60_611_168),
        ("lora", {"rank": 8}, 294_912, 60_801_536),
    ],
)
def test_the_numbers_of_the_exercise(
    method: str, settings: dict[str, Any], added: int, total: int
) -> None:
    assert counting.count(method, "t5-small", settings) == counting.Count(
        added, added, total, total
    )


def test_encoder_and_decoder_of_unequal_depth_and_projections_that_are_not_square() -> None:
    """Dimensions that all differ, so that no symbol can stand for another."""
    from transformers import T5Config

    odd = T5Config(
        d_model=50, d_kv=3, num_heads=7, d_ff=11, num_layers=2, num_decoder_layers=5,
        vocab_size=101, relative_attention_num_buckets=6,
    )  # fmt: skip
    for method, settings in SIZED:
        assert counting.count(method, odd, settings).equal


FORMS = [
    (gated, tied, method, implementation)
    for gated in (False, True)
    for tied in (False, True)
    for method, implementation in EVERY
]


@pytest.mark.parametrize(("gated", "tied", "method", "implementation"), FORMS)
def test_every_form_of_a_t5_is_counted(
    gated: bool, tied: bool, method: str, implementation: str
) -> None:
    inner = "gated-gelu" if gated else "relu"
    form = config("tiny", d_kv=7, feed_forward_proj=inner, tie_word_embeddings=tied)
    settings = SETTINGS[method]
    for more in ({}, {"targets": [*TARGETS]}) if method == "lora" else ({},):
        counted = counting.count(method, form, {**settings, **more}, implementation)
        assert counted.equal
        assert (counted.counted_added > 0) == (method != "full")


@pytest.mark.parametrize("size", [size for size in SIZES if size not in CLASSIC])
def test_every_later_size_is_counted(size: str) -> None:
    settings = SETTINGS | {"lora": {"rank": 8, "targets": ["q", "wi", "wo"]}}
    for method in settings if size.endswith("-small") else ("full", "lora"):
        assert counting.count(method, size, settings[method]).equal


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["scratch", "library"])
@pytest.mark.parametrize("targets", SUBSETS, ids="-".join)
def test_lora_at_every_set_of_targets_is_counted(
    targets: tuple[str, ...], implementation: str
) -> None:
    for gated in ("relu", "gated-gelu"):
        odd = config("tiny", d_kv=7, num_layers=1, num_decoder_layers=3, feed_forward_proj=gated)
        assert counting.count("lora", odd, {"rank": 3, "targets": targets}, implementation).equal


WRONG = {
    "soft-prompt": 2 * formulas.n * formulas.d,  # the rows of a decoder's prompt too
    "adapter": 2 * formulas.d * formulas.b,  # no bias
    "lora": 2 * formulas.r * formulas.d,  # a projection taken for square
}


@pytest.mark.parametrize("method", WRONG)
def test_a_wrong_formula_is_noticed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = formulas.FORMULAS[method]
    wrong = formulas.Formula(right.rule, right.sites, WRONG[method], ())
    monkeypatch.setitem(formulas.FORMULAS, method, wrong)
    printed, equal = counting.command(method, "t5-11b", {formulas.SETTINGS[method][0]: 8})
    assert not equal
    assert printed.endswith("NOT EQUAL")


def test_a_model_that_trains_too_little_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA without cross-attention: the classic mistake in a T5."""
    everywhere = lora.sites

    def without_cross(*given: Any) -> Any:
        return {k: v for k, v in everywhere(*given).items() if "EncDec" not in k}

    monkeypatch.setattr(lora, "sites", without_cross)
    counted = counting.count("lora", "tiny", {"rank": 2})
    assert counted.counted_added < counted.derived_added
    assert not counted.equal


def test_a_wrong_backbone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(formulas.PARTS, "relative positions")
    assert not counting.count("full", "tiny", {}).equal


def test_command_prints_formula_numbers_and_verdict() -> None:
    printed, equal = counting.command("adapter", "t5-small", {"bottleneck": 8}, "library")
    assert equal
    for line in (
        "formula       (L_e + L_d)*(d*b + b + b*d + d)",
        "substitution  (6 + 6)*(512*8 + 8 + 8*512 + 512)",
        "derived       104,544 added, 60,611,168 in all",
        "counted       104,544 added, 60,611,168 in all",
        "equal",
    ):
        assert line in printed.splitlines()


def test_command_without_settings_takes_those_of_the_exercise() -> None:
    assert "294,912" in counting.command("lora", "t5-small", {})[0]
    printed, equal = counting.command("lora", "tiny", {"targets": ["o"]})
    assert equal
    assert "  r           rank of a LoRA update: 8" in printed.splitlines()


def test_command_names_every_kind_of_sites(capsys: pytest.CaptureFixture[str]) -> None:
    command = "count lora --rank 2 --targets wo q --implementation library --size"
    assert main([*command.split(), "google/byt5-small"]) == 0
    printed = capsys.readouterr().out.splitlines()
    for line in (
        "method        lora on google/byt5-small, library",
        "added         beside the projection q of each attention (encoder layers have one, decoder "
        "layers two); beside the projection wo of each feed-forward sublayer",
        "formula       (L_e + 2*L_d)*(d*r + r*H*d_kv) + (L_e + L_d)*(d_ff*r + r*d)",
        "equal",
    ):
        assert line in printed


@pytest.mark.parametrize(
    ("method", "size", "settings", "implementation", "named"),
    [
        ("lora", "t5-medium", {"rank": 8}, "scratch", "t5-medium"),
        ("prefix", "tiny", {}, "scratch", "prefix"),
        ("lora", "tiny", {}, "scratch", "rank"),
        ("lora", "tiny", {"rank": 0}, "scratch", "rank"),
        ("lora", "tiny", {"rank": 1.5}, "scratch", "rank"),
        ("lora", "tiny", {"rank": True}, "scratch", "rank"),
        ("lora", "tiny", {"rank": 8, "targets": []}, "scratch", "targets"),
        ("lora", "tiny", {"rank": 8, "targets": "q"}, "scratch", "targets"),
        ("lora", "tiny", {"rank": 8, "targets": ["q", "q"]}, "scratch", "targets"),
        ("lora", "tiny", {"rank": 8, "targets": ["q", "wi_0"]}, "scratch", "targets"),
        ("adapter", "tiny", {"bottleneck": 8, "targets": ["q"]}, "scratch", "targets"),
        ("lora", "tiny", {"rank": 8, "bottleneck": 8}, "scratch", "bottleneck"),
        ("full", "tiny", {"alpha": 4}, "scratch", "alpha"),
        ("adapter", "tiny", {"bottleneck": 8, "alpha": 4}, "scratch", "alpha"),
        ("soft-prompt", "tiny", {"tokens": 9_000}, "scratch", "tokens"),
        ("lora", "tiny", {"rank": 8}, "opendelta", "opendelta"),
        ("full", "tiny", {}, "library", "library"),
    ],
)
def test_bad_input_is_named(
    method: str, size: str, settings: dict[str, Any], implementation: str, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        counting.count(method, size, settings, implementation)


def test_a_bottleneck_wider_than_the_model_is_warned_of_and_counted() -> None:
    with pytest.warns(UserWarning, match="wider than d_model"):
        assert counting.count("adapter", "tiny", {"bottleneck": 40}, "library").equal
    with warnings.catch_warnings(action="error"):
        assert counting.count("adapter", "tiny", {"bottleneck": 32}, "library").equal


@pytest.mark.slow
def test_the_largest_t5_is_counted_in_seconds_and_without_its_memory() -> None:
    """44 GB of weights would be: asked is 20 s (here of CPU, imports included) and 1.5 GB."""
    code = (
        "import resource, time; from t5peft.methods import counting;"
        "assert counting.count('lora', 't5-11b', {'rank': 64}, 'library').equal;"
        "print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, kilobytes = map(float, run.stdout.split())
    assert seconds < 20
    assert kilobytes < 1.5e6


def test_a_count_that_differs_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = formulas.FORMULAS["lora"]
    monkeypatch.setitem(
        formulas.FORMULAS, "lora", dataclasses.replace(right, share=right.share + 1)
    )
    assert main(["count", "lora", "--size", "tiny"]) == 1
    assert capsys.readouterr().out.endswith("NOT EQUAL\n")
