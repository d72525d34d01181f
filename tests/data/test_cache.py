from __future__ import annotations

from pathlib import Path

import pytest

from contrapose.data.cache import cache_folder, written_whole


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "file.arrow"
    with pytest.raises(ZeroDivisionError), written_whole(path) as part:
        1 / (part.write_text("half") - 4)
    assert list(path.parent.iterdir()) == []
    with written_whole(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert [file.read_text() for file in path.parent.iterdir()] == ["whole"]


def test_the_folder_is_the_one_given_else_that_of_the_environment_else_the_users(monkeypatch):
    monkeypatch.setenv("CONTRAPOSE_CACHE", "/from/environment")
    assert cache_folder("/given") == Path("/given")
    assert cache_folder() == Path("/from/environment")
    monkeypatch.delenv("CONTRAPOSE_CACHE")
    assert cache_folder().name == "contrapose"
