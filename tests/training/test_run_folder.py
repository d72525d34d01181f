"""What a run's configuration looks like to people."""

from __future__ import annotations

from contrapose.training.run_folder import counted


def test_a_long_list_is_counted_and_all_else_stays() -> None:
    assert counted([str(number) for number in range(3178)]) == "3,178 of them"
    assert counted(["a", "b"]) == ["a", "b"]
    assert counted("x" * 100) == "x" * 100
    assert counted(None) is None
