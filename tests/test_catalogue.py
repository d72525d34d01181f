"""Every file that counts as a method is one."""

from __future__ import annotations

import pytest

from contrapose.catalogue import find_method, methods
from contrapose.errors import MethodUnknown
from contrapose.training.method import Method


@pytest.mark.parametrize("name", methods())
def test_each_listing_is_a_method_with_a_summary(name: str) -> None:
    assert issubclass(find_method(name), Method)
    assert methods()[name].summary


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(MethodUnknown, match="did you mean 'pairs'"):
        find_method("pair")
