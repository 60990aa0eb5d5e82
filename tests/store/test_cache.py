"""Local copies of stored files: verified, bounded, never evicted while they are read."""

import hashlib
import multiprocessing
import os
import threading
import time

import pytest

from foundry_core.store.cache import CorruptFile, FileCache
from foundry_core.store.manifest import File, files_digest, scan


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    return tmp_path


class Source:
    """Files of known bytes; counts what is downloaded."""

    def __init__(self, **texts):
        self.data = {name: text.encode() for name, text in texts.items()}
        self.files = tuple(
            File(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in self.data.items()
        )
        self.asked = []

    def __call__(self, file, path):
        self.asked.append(file.path)
        path.write_bytes(self.data[file.path])
        return hashlib.sha256(self.data[file.path]).hexdigest()


def entries(cache):
    return {path.name for path in cache.root.glob("[0-9a-f]*")}


def use(cache, source):
    with cache.reading(source.files, source) as folder:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")}


def test_files_are_fetched_once_and_again_when_harmed():
    cache, source = FileCache(limit=1000), Source(a="one", b="two")
    assert use(cache, source) == source.data
    assert use(cache, source) == source.data
    assert sorted(source.asked) == ["a", "b"]
    (cache.root / files_digest(source.files) / "a").write_bytes(b"onx")
    assert use(FileCache(limit=1000), source) == source.data
    assert sorted(source.asked) == ["a", "a", "b"]
    (cache.root / files_digest(source.files) / "b").unlink()
    assert use(cache, source) == source.data


def test_wrong_bytes_never_appear():
    cache, source = FileCache(limit=1000), Source(a="one")
    source.data["a"] = b"two"
    with pytest.raises(CorruptFile, match="a: the store has a file with sha256"):
        use(cache, source)
    assert not list((cache.root / files_digest(source.files)).rglob("*"))


def test_the_least_recently_used_goes_first_and_the_bound_holds():
    cache = FileCache(limit=10)
    old, middle, new = Source(a="12345"), Source(a="abcde"), Source(a="ABCDE")
    for source in (old, middle):
        use(cache, source)
        time.sleep(0.02)
    use(cache, old)
    time.sleep(0.02)
    use(cache, new)
    assert entries(cache) == {files_digest(old.files), files_digest(new.files)}
    size = sum(p.stat().st_size for p in cache.root.rglob("*") if p.is_file())
    assert size <= 10


def test_what_is_read_stays_even_above_the_bound():
    cache = FileCache(limit=6)
    held, other = Source(a="12345"), Source(a="abcde")
    with cache.reading(held.files, held) as folder:
        use(cache, other)
        assert (folder / "a").read_bytes() == b"12345"
    use(cache, Source(a="third"))
    assert files_digest(held.files) not in entries(cache)


def _hold(home, source, ready, done):
    os.environ["FOUNDRY_HOME"] = str(home)
    with FileCache(limit=6).reading(source.files, source):
        ready.set()
        done.wait(30)


def test_another_process_evicts_only_what_nobody_reads(home):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    source = Source(a="12345")
    reader = context.Process(target=_hold, args=(home, source, ready, done), daemon=True)
    reader.start()
    try:
        assert ready.wait(30)
        cache = FileCache(limit=0)
        cache.make_room(0)
        assert entries(cache) == {files_digest(source.files)}
    finally:
        done.set()
        reader.join(30)
    cache.make_room(0)
    assert entries(cache) == set()


def test_many_readers_download_once():
    source, seen = Source(a="one", b="two"), []
    threads = [
        threading.Thread(target=lambda: seen.append(use(FileCache(limit=1000), source)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [source.data] * 6
    assert sorted(source.asked) == ["a", "b"]


def test_readers_and_evictors_do_not_disturb_each_other():
    sources = [Source(a=f"text {i}") for i in range(3)]
    problems = []

    def work(seed):
        cache = FileCache(limit=8)
        for step in range(15):
            source = sources[(seed + step) % 3]
            if use(cache, source) != source.data:
                problems.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_what_was_built_here_is_moved_in(home):
    built = home / "built"
    built.mkdir()
    (built / "a").write_text("one")
    files = scan(built)
    cache, source = FileCache(limit=1000), Source(a="one")
    cache.put(files, built)
    assert not built.exists()
    assert use(cache, source) == source.data
    assert source.asked == []
