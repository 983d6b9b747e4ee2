"""The walk: what counts as a picture, what is left out and why, and the order."""

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsim.indexer.exclusions import BadPattern, Exclusions, for_root, together
from diffsim.indexer.walk import Entry, Skipped, Unreadable, walk


def make(root: Path, *paths: str) -> bytes:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return os.fsencode(root)


def pictures(root: bytes, **options: object) -> list[str]:
    return [os.fsdecode(found.path) for found in walk(root, **options) if isinstance(found, Entry)]


def reasons(root: bytes, **options: object) -> dict[str, str]:
    return {os.fsdecode(found.path): found.reason for found in walk(root, **options) if not isinstance(found, Entry)}


@contextlib.contextmanager
def as_nobody_in(folder: Path) -> Iterator[None]:
    """Inside `folder` without root's right to read everything (root runs the tests in containers)."""
    folder.chmod(0o755)
    before, user = Path.cwd(), os.geteuid()
    os.chdir(folder)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        os.chdir(before)


def test_order_is_that_of_the_whole_relative_path(tmp_path):
    root = make(tmp_path, "a/b.jpg", "a.jpg", "a-b.jpg", "a/b/c.jpg", "Z.jpg", "a0/x.jpg", "é.jpg")
    assert pictures(root) == ["Z.jpg", "a-b.jpg", "a.jpg", "a/b.jpg", "a/b/c.jpg", "a0/x.jpg", "é.jpg"]


names = st.text("ab-.0é/ ~", min_size=1, max_size=9).map(lambda text: text.strip("/"))
paths = names.filter(lambda p: p and all(part.strip(".") for part in p.split("/")))


@settings(max_examples=60, deadline=None)
@given(st.lists(paths, max_size=14))
def test_order_equals_sorted_for_any_tree(tree):
    with tempfile.TemporaryDirectory() as folder:
        made = set()
        for path in tree:
            target = Path(folder, path + ".png")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"")
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
            made.add(os.path.relpath(os.fsencode(target), os.fsencode(folder)))
        found = list(walk(os.fsencode(folder), include_hidden=True))
        assert [entry.path for entry in found if isinstance(entry, Entry)] == sorted(made)
        assert [each.path for each in found] == sorted(each.path for each in found)


def test_entries_carry_the_stat(tmp_path):
    (entry,) = walk(make(tmp_path, "one.JPG"))
    found = (tmp_path / "one.JPG").stat()
    assert entry == Entry(b"one.JPG", 1, found.st_mtime_ns, found.st_ctime_ns)


def test_what_is_skipped_and_why(tmp_path):
    root = make(
        tmp_path, "a.jpg", "b.txt", "noext", ".h.jpg", ".hid/x.jpg", "._a.jpg", "Thumbs.db", "@eaDir/x.jpg", "t.pdf"
    )
    assert pictures(root) == ["a.jpg"]
    assert reasons(root) == {
        "b.txt": "not a picture by its name",
        "noext": "not a picture by its name",
        "t.pdf": "not a picture by its name",
        ".h.jpg": "hidden",
        ".hid": "hidden",
        "._a.jpg": "a system's side file",
        "Thumbs.db": "a system's side file",
        "@eaDir": "excluded directory",
    }


def test_hidden_files_on_request_but_never_side_files_or_trash(tmp_path):
    root = make(tmp_path, ".h.jpg", ".hid/x.jpg", "._a.jpg", ".DS_Store", ".Trash-1000/x.jpg", ".git/x.jpg")
    assert pictures(root, include_hidden=True) == [".h.jpg", ".hid/x.jpg"]


@pytest.mark.parametrize("beside", ["catalog.sqlite", "spaces/x", "writer.json"])
def test_every_index_is_left_out_and_nothing_that_resembles_one(tmp_path, beside):
    root = make(tmp_path, "my.idx/index.toml", f"my.idx/{beside}", "my.idx/thumbnails/5a/5a.webp", "my.idx/own.jpg")
    make(tmp_path, "book/index.toml", "book/a.jpg", "data/spaces/b.jpg", "data/catalog.sqlite")
    assert pictures(root) == ["book/a.jpg", "data/spaces/b.jpg"]
    assert reasons(root)["my.idx"] == "index folder"


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ((), ["a.gif", "keep/raw-1.jpg", "keep/raw-2/x.jpg", "private/x.jpg", "raw-1/x.jpg", "sub/private/x.jpg"]),
        (("raw-*/",), ["a.gif", "keep/raw-1.jpg", "private/x.jpg", "sub/private/x.jpg"]),
        (("raw-*",), ["a.gif", "private/x.jpg", "sub/private/x.jpg"]),
        (("/private",), ["a.gif", "keep/raw-1.jpg", "keep/raw-2/x.jpg", "raw-1/x.jpg", "sub/private/x.jpg"]),
        (("private/", "*.gif", "raw*", "!raw-1"), ["raw-1/x.jpg"]),
        (("*", "!*.gif"), ["a.gif"]),
    ],
)
def test_patterns_are_those_of_gitignore(tmp_path, patterns, left):
    root = make(
        tmp_path, "raw-1/x.jpg", "keep/raw-1.jpg", "keep/raw-2/x.jpg", "private/x.jpg", "sub/private/x.jpg", "a.gif"
    )
    exclusions = Exclusions(patterns)
    assert pictures(root, exclusions=exclusions) == left
    assert exclusions.matched == set(patterns)
    assert {reason for path, reason in reasons(root, exclusions=exclusions).items()} <= {"excluded by a pattern"}


def test_the_default_exclusions_can_be_taken_back(tmp_path):
    root = make(tmp_path, "lost+found/x.jpg", "@eaDir/x.jpg", "lost+found.jpg")
    assert pictures(root) == ["lost+found.jpg"]
    assert pictures(root, exclusions=Exclusions(("!@eaDir/",))) == ["@eaDir/x.jpg", "lost+found.jpg"]


@pytest.mark.parametrize("pattern", ["", "#private", "!", "a\nb", ".", "./", "/", "  "])
def test_a_pattern_that_means_nothing_is_refused(pattern):
    with pytest.raises(BadPattern, match=r"The pattern .* (is|leaves nothing out)"):
        for_root(pattern, b"", ["/p"])


@pytest.mark.parametrize(
    ("given", "folder", "kept"),
    [
        ("private", b"", "private"),
        ("private/", b"", "private/"),
        ("./private", b"", "/private"),
        ("/photos/private", b"", "/private"),
        ("/link/private/", b"", "/private/"),
        ("!/photos/a/*.gif", b"", "!/a/*.gif"),
        ("/elsewhere/private", b"", "/elsewhere/private"),
        ("private", b"in [it]", "/in\\ \\[it\\]/**/private"),
        ("/photos/a", b"in", "/in/a"),
        ("!./a", b"in", "!/in/a"),
        ("a/b", b"in", "/in/a/b"),
    ],
)
def test_a_pattern_for_a_folder_is_one_for_its_root(given, folder, kept):
    assert for_root(given, folder, ["/photos", "/link"]) == kept


def test_a_pattern_is_taken_back_by_its_opposite():
    assert together((), ["a", "b/"]) == ("a", "b/")
    assert together(("a", "b/"), ["!a"]) == ("b/",)
    assert together(("a",), ["!a/keep", "a"]) == ("!a/keep", "a")
    assert together(("!@eaDir/",), ["@eaDir/"]) == ("@eaDir/",)


def test_links_and_special_files_are_never_followed_or_opened(tmp_path):
    root = make(tmp_path, "real/a.jpg")
    (tmp_path / "dir").symlink_to(tmp_path / "real")
    (tmp_path / "real/up").symlink_to("..")
    (tmp_path / "file.jpg").symlink_to(tmp_path / "real/a.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # a socket's path must be short
        listener.bind("socket.jpg")
        assert pictures(root) == ["real/a.jpg"]
        assert reasons(root) == {
            "dir": "symbolic link",
            "real/up": "symbolic link",
            "file.jpg": "symbolic link",
            "self.jpg": "symbolic link",
            "fifo.jpg": "not a regular file",
            "socket.jpg": "not a regular file",
        }


def test_the_root_itself_may_be_a_link_or_missing_or_a_file(tmp_path):
    make(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert pictures(os.fsencode(tmp_path / "link")) == ["a.jpg"]
    assert list(walk(os.fsencode(tmp_path / "none"))) == [Unreadable(b"", "no longer there")]
    assert list(walk(os.fsencode(tmp_path / "real/a.jpg"))) == [Unreadable(b"", "not a directory")]


def test_names_need_not_be_utf8(tmp_path):
    if sys.platform != "linux":
        pytest.skip("this file system takes no such names")
    with open(os.path.join(os.fsencode(tmp_path), b"\xe9\xff.jpg"), "wb"):
        pass
    assert [found.path for found in walk(os.fsencode(tmp_path))] == [b"\xe9\xff.jpg"]


def test_a_closed_directory_is_unreadable_in_its_place(tmp_path):
    make(tmp_path, "a/x.jpg", "b/x.jpg", "b-.jpg", "c.jpg")
    (tmp_path / "b").chmod(0)
    with as_nobody_in(tmp_path):
        found = list(walk(b"."))
    assert [each.path for each in found] == [b"a/x.jpg", b"b", b"b-.jpg", b"c.jpg"]
    assert found[1] == Unreadable(b"b", "permission denied")


def test_a_directory_that_vanishes_meanwhile(tmp_path):
    walking = walk(make(tmp_path, "a.jpg", "b/x.jpg"))
    assert isinstance(next(walking), Entry)
    (tmp_path / "b/x.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert list(walking) == [Unreadable(b"b", "no longer there")]


def test_skipped_is_told_from_unreadable(tmp_path):
    assert list(walk(make(tmp_path, "x.txt"))) == [Skipped(b"x.txt", "not a picture by its name")]
