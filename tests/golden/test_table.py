"""The table of public calls tells the truth: it names every array once, and each call that it names makes its arrays."""

from __future__ import annotations

import inspect

import pytest

from tests.golden.check import check, computed, matches, read, recipe_of, slugs
from tests.golden.table import FILES, find, functions, lines, page

SCALABLE = ("contrapose.objectives", "contrapose.geometry", "contrapose.hardness")  # give numbers alone


def test_every_file_has_a_recipe_and_every_recipe_a_file() -> None:
    assert slugs() == sorted(file.stem for file in FILES.glob("*.npz"))


@pytest.mark.parametrize("slug", slugs())
def test_every_array_stands_in_one_line_and_no_line_is_empty(slug: str) -> None:
    outputs = [name for name in read(FILES / f"{slug}.npz") if not matches(name, recipe_of(slug).INPUTS)]
    assert sorted(name for line in lines(slug) for name in line.arrays) == sorted(outputs)
    assert [line.pattern for line in lines(slug) if not line.arrays] == []


@pytest.mark.parametrize("slug", slugs())
def test_every_call_is_the_librarys_and_public(slug: str) -> None:
    recipe = recipe_of(slug)
    named = {name for line in lines(slug) for name in functions(recipe, line.call)}
    strangers = [name for name in named if not inspect.getmodule(find(recipe, name)).__name__.startswith("contrapose.")]
    assert strangers == []
    assert [
        line.pattern
        for line in lines(slug)
        if not (line.waits or "plain algebra" in line.call or functions(recipe, line.call))
    ] == []


@pytest.mark.parametrize("slug", slugs())
def test_what_waits_is_not_made(slug: str) -> None:
    recipe, given = recipe_of(slug), read(FILES / f"{slug}.npz")
    due = computed(recipe, given)
    made = recipe.recompute({name: given[name] for name in given if name not in due}, due)
    assert [name for name in made if matches(name, recipe.WAITS)] == []


def calls_by_recipe() -> list[tuple[str, str]]:
    """Every function of numbers that a recipe's table names."""
    named = [(slug, name) for slug in slugs() for line in lines(slug) for name in functions(recipe_of(slug), line.call)]
    return sorted(
        {
            (slug, name)
            for slug, name in named
            if getattr(find(recipe_of(slug), name), "__module__", "").startswith(SCALABLE)
        }
    )


@pytest.mark.parametrize(("slug", "name"), calls_by_recipe())
def test_an_array_follows_the_calls_named_beside_it(slug: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a call's result a thousandth larger, all arrays that name it are off."""
    recipe = recipe_of(slug)
    call = find(recipe, name)
    monkeypatch.setattr(recipe, name, lambda *given, **options: call(*given, **options) * 1.001)
    off = {verdict.name for verdict in check(slug, FILES / f"{slug}.npz") if not verdict.holds}
    named = {array for line in lines(slug) if name in functions(recipe, line.call) for array in line.arrays}
    assert named - off == set()


def test_the_page_counts_what_is_made_and_what_waits() -> None:
    table = [line for slug in slugs() for line in lines(slug)]
    made, waiting = (sum(len(line.arrays) for line in table if bool(line.waits) is waits) for waits in (False, True))
    assert f"{made} arrays are made again. {waiting} wait for a method" in page()
