import pytest
import torch

from imvideoedit.common.hashing import hash_tensors


def test_tensor_hashes_see_names_shapes_types_and_bits():
    one = torch.arange(6.0)
    hashes = {
        hash_tensors(tensors)
        for tensors in (
            {"a": one},
            {"b": one},
            {"a": one.reshape(2, 3)},
            {"a": one.half()},
            {"a": one + 1e-6},
            {"a": one, "b": one},
        )
    }
    assert len(hashes) == 6
    assert hash_tensors({"a": one, "b": one + 1}) == hash_tensors({"b": one + 1, "a": one})


def test_a_cast_hides_what_it_rounds_away():
    one, near = torch.ones(4), torch.ones(4) + 1e-6
    assert hash_tensors({"a": one}) != hash_tensors({"a": near})
    assert hash_tensors({"a": one}, torch.bfloat16) == hash_tensors({"a": near}, torch.bfloat16)
    assert hash_tensors({"a": one}, torch.bfloat16) == hash_tensors({"a": one.bfloat16()})


def test_tensors_without_storage_have_no_hash():
    with pytest.raises(ValueError, match="a is on the meta device"):
        hash_tensors({"a": torch.empty(2, device="meta")})
