"""What is remembered can be made again."""

from __future__ import annotations

import pytest

from t5peft.base import paths
from t5peft.base.studies import Study
from t5peft.inputs import data


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": 1', b"[" * 9999])
def test_a_damaged_cache_is_made_again(content: bytes, study: Study) -> None:
    wanted, tokens = data.fingerprint(study), data.tokens(study, "test").ids.clone()
    for path in paths.cache().rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    assert data.fingerprint(study) == wanted
    assert (data.tokens(study, "test").ids == tokens).all()
