import os

import pytest

from keras_distil import data


@pytest.fixture
def root(tmp_path):
    for name in ("b.txt", "a.txt", "inner/c.txt", "a.tsv"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "root" / "folder.txt").mkdir()
    (tmp_path / "outside.txt").write_text("outside")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.txt", ["a.txt"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "inner/c.txt"]),
        ("../*.txt", ["../outside.txt"]),
    ],
)
def test_files_are_found_in_order(root, pattern, names):
    found = data.find_files(pattern, root)
    assert found == [root / name for name in names]


def test_a_pattern_without_a_root_starts_from_here(root, monkeypatch):
    monkeypatch.chdir(root)
    assert [str(x) for x in data.find_files("a.*", None)] == ["a.tsv", "a.txt"]


def test_nothing_is_an_error(root):
    with pytest.raises(FileNotFoundError, match="matches pattern 'z'.*Check"):
        data.find_files("z", root)


def test_the_root_is_not_left_without_permission(root):
    for pattern in ("../*.txt", str(root.parent / "*.txt")):
        with pytest.raises(ValueError, match="leaves the root.*Give one below"):
            data.find_files(pattern, root, allow_outside_root=False)
    os.symlink(root.parent / "outside.txt", root / "link.txt")
    assert data.find_files("link.txt", root) == [root / "link.txt"]
    with pytest.raises(ValueError, match="link out of the root.*Copy the file"):
        data.find_files("link.txt", root, allow_outside_root=False)
