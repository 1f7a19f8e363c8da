"""Int8 storage."""

from __future__ import annotations

from pathlib import Path

import torch

from t5peft.inputs import backbone, int8


def test_a_t5_small_is_stored_in_shards_that_any_host_takes(tmp_path: Path) -> None:
    model = backbone.load("random:t5-small")
    int8.save(model, tmp_path)
    sizes_of_shards = [path.stat().st_size for path in tmp_path.glob("int8-*")]
    assert len(sizes_of_shards) > 1
    assert max(sizes_of_shards) < 16 * 2**20
    stored = backbone.load(str(tmp_path))
    for name, parameter in model.named_parameters():
        dequantized = int8.dequantize(*int8.quantize(parameter))
        assert torch.equal(stored.get_parameter(name), dequantized), name


def test_a_row_of_zeros_stays_one() -> None:
    assert not int8.dequantize(*int8.quantize(torch.zeros(2, 3))).any()


def test_int8_rows_are_off_by_half_a_step_at_most() -> None:
    tensor = torch.randn(7, 5) * torch.logspace(-6, 3, 7)[:, None]
    values, scale = int8.quantize(tensor)
    assert values.dtype == torch.int8
    error = (int8.dequantize(values, scale) - tensor).abs()
    assert bool((error <= 0.5001 * scale[:, None]).all())
