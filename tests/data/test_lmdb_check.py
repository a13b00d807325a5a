"""The check of LMDB's pages: every sound file passes, whatever its history; a damaged page is named, never followed."""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearthnet_cbir.data.lmdb_check import PageChecker
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.errors import DataError

PAGE = 4096


def write(folder: Path, entries: dict[bytes, bytes]) -> Path:
    """Write an LMDB and return its data.mdb."""
    environment = lmdb.open(str(folder), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)
    environment.close()
    return folder / "data.mdb"


def many(number: int) -> dict[bytes, bytes]:
    """Entries that make a tree of three levels; every second value has a page of its own."""
    return {f"{i:05d}{'x' * 300}".encode(): bytes(3000 if i % 2 else 30) for i in range(number)}


operations = st.lists(
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(("put", "delete")), st.sampled_from((1, 20, 2100, 50_000))),
        min_size=1, max_size=60,
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(operations, st.integers(1, 480))
def test_every_history_of_a_sound_file_passes(tmp_path_factory: pytest.TempPathFactory, history, length) -> None:
    """Splits, merges, freed pages and their reuse: what LMDB writes is what the check takes."""
    folder = tmp_path_factory.mktemp("history")
    environment = lmdb.open(str(folder), map_size=1 << 26)
    expected: dict[bytes, bytes] = {}
    for batch in history:
        with environment.begin(write=True) as transaction:
            for number, what, size in batch:
                key = f"{number:04d}{'k' * length}".encode()
                if what == "put":
                    expected[key] = bytes([number % 256]) * size
                    transaction.put(key, expected[key])
                else:
                    expected.pop(key, None)
                    transaction.delete(key)
    environment.close()
    with closing(PageChecker(folder / "data.mdb")) as checker:
        assert list(checker.every_key()) == sorted(expected)
        checker.check_for_writing()
        for key in expected:
            checker.check_value(key)
        checker.check_key(b"absent")


def short_file(folder: Path) -> Path:
    """Write an LMDB that takes pages at the end of its file and gives them back unwritten; return its data.mdb."""
    for content in (b"1", b"2", b"3"):  # frees pages for what LMDB writes last
        path = write(folder, {b"a": content, b"b": bytes(50_000)})
    with lmdb.open(str(folder), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"c", bytes(90_000))
        transaction.delete(b"c")
    with closing(PageChecker(path)) as checker:
        assert checker.head.last_stored < checker.head.last_page
    return path


def test_free_pages_at_the_end_need_not_be_in_the_file(tmp_path: Path) -> None:
    path = short_file(tmp_path)
    with closing(PageChecker(path)) as checker:
        assert list(checker.every_key()) == [b"a", b"b"]
        checker.check_for_writing()
    with PatchStore(tmp_path) as store:
        assert len(store) == 2


@pytest.mark.parametrize("is_short", [False, True])
def test_a_file_without_its_last_pages_is_truncated(tmp_path: Path, is_short: bool) -> None:
    path = short_file(tmp_path) if is_short else write(tmp_path, many(60))
    size = path.stat().st_size
    last = () if is_short else (size - 1, size - PAGE)  # these pages are free in the short file
    for keep in (*last, size // 2 // PAGE * PAGE, 2 * PAGE):
        with path.open("r+b") as stream:
            stream.truncate(keep)
        with pytest.raises(DataError, match=rf"data\.mdb: truncated \({keep:,} of .* bytes\); copy or download"):
            PageChecker(path)


def patched(path: Path, page: int, offset: int, content: bytes) -> Path:
    """Write bytes over a place of a page."""
    with path.open("r+b") as stream:
        stream.seek(page * PAGE + offset)
        stream.write(content)
    return path


def tree(path: Path) -> tuple[int, list[int]]:
    """Return the root, a branch, and the pages below it."""
    content = path.read_bytes()
    number = max((struct.unpack_from("<Q", content, PAGE * head + 144), head) for head in (0, 1))[1]
    (root,) = struct.unpack_from("<Q", content, PAGE * number + 16 + 24 + 48 + 40)
    start = root * PAGE
    count = (struct.unpack_from("<H", content, start + 12)[0] - 16) // 2
    children = []
    for offset in struct.unpack_from(f"<{count}H", content, start + 16):
        low, high, top, _ = struct.unpack_from("<HHHH", content, start + offset)
        children.append(low | high << 16 | top << 32)
    return root, children


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path, many(60))


def check_everything(path: Path) -> None:
    with closing(PageChecker(path)) as checker:
        checker.check_for_writing()
        checker.check_all()


def damages(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Name -> (page, offset, bytes): every one of them made LMDB crash, hang, or hide records, or may."""
    root, (first, second, *_) = tree(path)
    content = path.read_bytes()
    leaf = content[first * PAGE :][:PAGE]
    one, two = struct.unpack_from("<HH", leaf, 16)
    elsewhere = one if leaf[one + 4] & 1 else two
    return {
        "a page of another number": (first, 0, struct.pack("<Q", second)),
        "a leaf that says it is a branch": (first, 10, b"\x01"),
        "offsets beyond the page": (first, 16, b"\xfe\xff"),
        "too many entries": (first, 12, struct.pack("<H", 4000)),
        "no entries": (first, 12, struct.pack("<H", 16)),
        "keys in another order": (first, 16, struct.pack("<HH", two, one)),
        "a key of another leaf": (first, one + 8, b"00059"),
        "a key longer than LMDB has": (first, one + 6, struct.pack("<H", 4000)),
        "a value longer than the file": (first, elsewhere, b"\xff\xff\xff\x7f"),
        "a value beyond the file": (first, elsewhere + 8 + 305, struct.pack("<Q", 1 << 40)),
        "an entry that is a tree": (first, one + 4, b"\x02"),
        "a branch that leads to itself": (root, root_entry(content, root), struct.pack("<H", root)),
        "a branch that leads beyond the file": (root, root_entry(content, root), b"\xff\x7f"),
        "two ways to one leaf": (root, root_entry(content, root), struct.pack("<H", second)),
    }


def root_entry(content: bytes, root: int) -> int:
    return struct.unpack_from("<H", content, root * PAGE + 16)[0]


NAMES = (
    "a page of another number", "a leaf that says it is a branch", "offsets beyond the page", "too many entries",
    "no entries", "keys in another order", "a key of another leaf", "a key longer than LMDB has",
    "a value longer than the file", "a value beyond the file", "an entry that is a tree",
    "a branch that leads to itself", "a branch that leads beyond the file", "two ways to one leaf",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_damaged_page_is_refused_by_its_number(data: Path, name: str) -> None:
    check_everything(data)
    page, offset, content = damages(data)[name]
    patched(data, page, offset, content)
    with pytest.raises(DataError, match=r"data\.mdb: page \d+ is damaged \(.*\); copy or download the archive again"):
        check_everything(data)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_damaged_page_is_refused_before_a_key_on_it_is_looked_up(data: Path, name: str) -> None:
    page, offset, content = damages(data)[name]
    patched(data, page, offset, content)
    with PatchStore(data.parent) as store, pytest.raises(DataError, match="is damaged"):
        store.missing(["00000" + "x" * 300])


def test_only_the_pages_on_the_way_are_read(data: Path) -> None:
    """An archive on slow storage opens at once: a damaged page elsewhere is noticed when it is needed."""
    _, children = tree(data)
    patched(data, children[-1], 0, bytes(PAGE))
    with PatchStore(data.parent) as store:
        assert store.missing(["00000" + "x" * 300]) == []
        with pytest.raises(DataError, match=f"page {children[-1]} is damaged"):
            list(store.names())


def test_number_of_records_that_is_not_the_heads_is_refused(data: Path) -> None:
    patched(data, 1, 16 + 24 + 48 + 32, struct.pack("<Q", 61))
    with PatchStore(data.parent) as store, pytest.raises(DataError, match=r"60 records.* 61; copy or download"):
        list(store.names())


@pytest.mark.parametrize(
    ("offset", "content"),
    [(16, b"\0"), (20, b"\x02"), (40, b"\0\0\0\0"), (40, b"\0\0\0\x80"), (92, b"\x04"), (94, b"\x80")],
    ids=["magic", "version", "page size 0", "page size 2 GiB", "other keys", "depth"],
)
def test_damaged_head_is_refused_before_lmdb_opens_it(data: Path, offset: int, content: bytes) -> None:
    for head in (0, 1):
        patched(data, head, offset, content)
    with PatchStore(data.parent) as store, pytest.raises(DataError, match="LMDB cannot open it"):
        len(store)


def test_older_head_that_a_killed_commit_left_half_written_is_no_damage(data: Path) -> None:
    """LMDB writes the older head last in a commit, and its transaction last of all."""
    content = data.read_bytes()
    transactions = [struct.unpack_from("<Q", content, PAGE * head + 144)[0] for head in (0, 1)]
    older = transactions.index(min(transactions))
    patched(data, older, 16 + 24 + 48 + 4, b"\xff" * 44)  # in the middle of its tree of records
    with closing(PageChecker(data)) as checker:
        assert len(list(checker.every_key())) == 60
        checker.check_for_writing()
    with lmdb.open(str(data.parent), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert transaction.stat()["entries"] == 60


def test_nothing_is_written_where_a_page_has_two_uses(tmp_path: Path, true_patches) -> None:
    """A record's pages that are listed as free would be overwritten by the next one."""
    names = list(true_patches)
    for batch in (names[:3], names[:3]):
        with PatchWriter(tmp_path, batch=1) as writer:
            for name in batch:
                writer.write(name, true_patches[name])
    data = tmp_path / "data.mdb"
    with closing(PageChecker(data)) as checker:
        free, root = checker.head.free.root, checker.head.records.root
    content = data.read_bytes()[free * PAGE :][:PAGE]
    (offset,) = struct.unpack_from("<H", content, 16)
    count, listed = struct.unpack_from("<QQ", content, offset + 16)
    assert count
    assert listed != root
    patched(data, free, offset + 24, struct.pack("<Q", root))
    with pytest.raises(DataError, match=r"used twice|list of free pages is damaged"):
        PatchWriter(tmp_path)


def test_record_whose_first_page_is_zeroed_is_not_replaced(tmp_path: Path, true_patches) -> None:
    """LMDB reads from that page how many pages it frees; from zeros it would free other records'."""
    names = sorted(true_patches)[:2]
    with PatchWriter(tmp_path) as writer:
        for name in names:
            writer.write(name, true_patches[name])
    data = tmp_path / "data.mdb"
    with closing(PageChecker(data)) as checker:
        leaf = next(checker._walk(checker.head.records, checker._pages, set()))
    patched(data, int(leaf.pages[1]), 0, bytes(PAGE))
    with pytest.raises(DataError, match="is not the start of a record"), PatchWriter(tmp_path) as writer:
        writer.write(names[1], true_patches[names[1]])


def test_value_that_became_shorter_holds_its_pages_and_no_others(tmp_path: Path) -> None:
    """LMDB keeps the pages of a value that is replaced by a shorter one; what it says of them is checked."""
    environment = lmdb.open(str(tmp_path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", bytes(50_000))
        transaction.put(b"b", bytes(50_000))
        transaction.put(b"a", bytes(9_000))
    environment.close()
    data = tmp_path / "data.mdb"
    with closing(PageChecker(data)) as checker:
        leaf = next(checker._walk(checker.head.records, checker._pages, set()))
        assert len(checker._pages.held(leaf, 0)) == 13
        checker.check_value(b"a")
    patched(data, int(leaf.pages[0]), 12, struct.pack("<I", 14))
    with closing(PageChecker(data)) as checker, pytest.raises(DataError, match=r"page 3 .* used elsewhere"):
        checker.check_value(b"a")


def test_archive_that_died_before_its_first_transaction_is_written_to(tmp_path: Path, true_patches) -> None:
    name, patch = next(iter(true_patches.items()))
    (tmp_path / "data.mdb").touch()
    with PatchWriter(tmp_path) as writer:
        writer.write(name, patch)
    with PatchStore(tmp_path) as store:
        assert store.missing([name]) == []


def test_reader_sees_what_another_process_wrote_meanwhile(tmp_path: Path) -> None:
    """What was checked belongs to one transaction; after another the pages are checked anew."""
    path = write(tmp_path, {b"a": b"1"})
    environment = lmdb.open(str(tmp_path), map_size=1 << 26, lock=False, subdir=True)
    environment.close()
    with closing(PageChecker(path)) as checker:
        assert list(checker.every_key()) == [b"a"]
        write(tmp_path, {b"b": b"2"})
        checker.refresh(checker.head.transaction + 1)
        assert list(checker.every_key()) == [b"a", b"b"]
