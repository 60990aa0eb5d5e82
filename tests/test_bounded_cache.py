"""A folder of bounded size: what goes, what stays, and who waits for whom."""

import multiprocessing
import pickle
import threading
import time

import pytest

from foundry_core.bounded_cache import BoundedCache


def index_of(entry):
    return (entry.with_suffix(".index"),)


def put(cache, name, size=5):
    """Uses an entry of so many bytes; it is made if it is absent."""
    with cache.using(name) as path, cache.filling(name):
        if not path.exists():
            path.write_bytes(b"x" * size)
        cache.make_room()
    time.sleep(0.02)


def names(cache):
    return sorted(path.name for path in cache.root.iterdir() if not path.name.startswith("."))


def test_the_least_recently_used_goes_first(tmp_path):
    cache = BoundedCache(tmp_path, 10)
    put(cache, "a")
    put(cache, "b")
    put(cache, "a")
    put(cache, "c")
    assert names(cache) == ["a", "c"]
    assert sorted(path.name for path in (tmp_path / ".locks").iterdir()) == ["a", "c"]
    assert cache.make_room(3) == ["a"]
    assert names(cache) == ["c"]


def test_folders_count_with_all_that_lies_in_them(tmp_path):
    cache = BoundedCache(tmp_path, 10)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "x").write_bytes(b"x" * 11)
    put(cache, "a")
    assert names(cache) == ["a"]


def test_companions_go_with_their_entry_and_other_names_stay(tmp_path):
    cache = BoundedCache(tmp_path, 10, pattern="*.tar", companions=index_of)
    (tmp_path / "manifest").write_bytes(b"m" * 100)
    put(cache, "a.tar", 5)
    (tmp_path / "a.index").write_bytes(b"i" * 3)
    put(cache, "b.tar", 2)
    assert names(cache) == ["a.index", "a.tar", "b.tar", "manifest"]
    put(cache, "c.tar", 1)
    assert names(cache) == ["b.tar", "c.tar", "manifest"]
    assert pickle.loads(pickle.dumps(cache)).limit == 10


def test_what_is_in_use_stays_beyond_the_bound(tmp_path):
    cache = BoundedCache(tmp_path, 6)
    put(cache, "a")
    with cache.using("a"):
        put(cache, "b")
        assert names(cache) == ["a", "b"]
    assert cache.make_room() == ["a"]


def _hold(root, ready, done):
    with BoundedCache(root, 0).using("a"):
        ready.set()
        done.wait(30)


def test_use_by_another_process_counts_and_ends_with_it(tmp_path):
    cache = BoundedCache(tmp_path, 0)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    (tmp_path / "a").write_bytes(b"x")
    holder = context.Process(target=_hold, args=(tmp_path, ready, done), daemon=True)
    holder.start()
    try:
        assert ready.wait(30)
        assert cache.make_room() == []
    finally:
        holder.kill()
        holder.join(30)
    assert cache.make_room() == ["a"]


def test_one_fills_while_the_others_wait(tmp_path):
    cache, inside, most = BoundedCache(tmp_path, 100), [], []

    def fill():
        with cache.using("a"), cache.filling("a"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=fill) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert [path.name for path in (tmp_path / ".locks").iterdir()] == ["a"]


def test_a_filling_that_fails_is_begun_again(tmp_path):
    cache = BoundedCache(tmp_path, 100)
    with pytest.raises(OSError, match="away"), cache.using("a"), cache.filling("a"):
        raise OSError("away")
    put(cache, "a")
    assert names(cache) == ["a"]


def test_users_and_evictors_do_not_disturb_each_other(tmp_path):
    problems = []

    def work(seed):
        cache = BoundedCache(tmp_path, 8)
        for step in range(30):
            name = "abc"[(seed + step) % 3]
            with cache.using(name) as path:
                with cache.filling(name):
                    if not path.exists():
                        path.write_text(name * 5)
                cache.make_room()
                if path.read_text() != name * 5:
                    problems.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
