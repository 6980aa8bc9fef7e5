import pytest
import torch

from medssml.encoders import Head


@pytest.mark.parametrize(("kind", "shape"), [("binary", (5,)), ("regression", (5,)), ("multiclass", (5, 4))])
def test_shapes(kind, shape):
    assert Head(8, kind, 4)(torch.rand(5, 8)).shape == shape


def test_refuses_unknown_kinds():
    with pytest.raises(ValueError, match="binary, multiclass, regression"):
        Head(8, "ordinal")
    with pytest.raises(ValueError, match="at least 2"):
        Head(8, "multiclass", 1)
