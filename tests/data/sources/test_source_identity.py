"""What a source's readers read is what its identity covers: no more, no less."""

import importlib
import io
import json
import os
import shutil
import sys
import tarfile

import numpy as np
import pytest

from foundry_core.data.images import encode_jpeg
from foundry_core.data.shards.index import build_index, index_path, scan_tar
from foundry_core.data.shards.packed import Packed, write_index
from foundry_core.data.sources.captions.img2dataset import ImageCaptionTars
from foundry_core.data.sources.captions.scenes import SceneFolder
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.sources.robot.spartan import Spartan
from foundry_core.data.sources.text import packages
from foundry_core.data.sources.text.jsonl import JsonLines
from foundry_core.data.sources.text.packages import PackageDocs
from foundry_core.data.sources.text.text_tars import TextTars
from foundry_core.data.sources.text.txt import PlainText
from foundry_core.errors import FoundryError
from foundry_core.identity import sources
from foundry_core.identity.sources import fingerprint, package_fingerprint

OLD = 10**18


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()  # caches are kept where there is a home
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def texts(source):
    return [document.text for ref in source.refs() for document in source.read(ref)]


def captions(source):
    return [found for ref in source.refs() for found in source.items(ref)]


def tar_of(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_a_plain_folder_keeps_the_identity_it_always_had(tmp_path):
    for name in ("b.txt", "a/z.txt", "a.b/c.txt"):
        write(tmp_path / "raw" / name, name)
    known = "6a063ce603084dc8febeb929f5e47bf94214fda81ddb5813ea350818118f816d"
    assert fingerprint(tmp_path / "raw") == known


def test_text_behind_a_linked_folder_is_read_and_identified(tmp_path):
    write(tmp_path / "raw" / "a.txt", "one")
    (tmp_path / "raw" / "more").symlink_to(tmp_path / "elsewhere")
    other = write(tmp_path / "elsewhere" / "b.txt", "two")
    source = PlainText(path=str(tmp_path / "raw"))
    before = source.identity()
    assert texts(source) == ["one", "two"]
    shutil.copytree(tmp_path / "raw", tmp_path / "copy")
    assert PlainText(path=str(tmp_path / "copy")).identity() == before
    other.write_text("2.0")
    assert source.identity() != before


def test_an_edit_behind_a_linked_file_or_folder_of_episodes_is_seen(tmp_path):
    write(tmp_path / "raw" / "demos.json", "{}")
    (tmp_path / "raw" / "episodes").symlink_to(tmp_path / "real")
    episode = write(tmp_path / "real" / "lift" / "0.tar", "1")
    (tmp_path / "real" / "lift" / "1.tar").symlink_to(write(tmp_path / "late.tar", "2"))
    source = Demonstrations(path=str(tmp_path / "raw"))
    assert [ref.path.read_text() for ref in source.episodes()] == ["1", "2"]
    seen = {source.identity()["demonstrations"]}
    for file in (episode, tmp_path / "late.tar"):
        file.write_text("3")
        seen.add(source.identity()["demonstrations"])
    assert len(seen) == 3


@pytest.mark.parametrize("target", [".", "..", "../other", "itself"])
def test_links_without_an_end_are_named(tmp_path, target):
    write(tmp_path / "raw" / "a.txt", "one")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "back").symlink_to(tmp_path / "raw")
    link = tmp_path / "raw" / "itself"
    link.symlink_to(target)
    named = link / "back" if target == "../other" else link
    for look in (fingerprint, lambda path: texts(PlainText(path=str(path)))):
        with pytest.raises(FoundryError, match=f"link '{named}' leads back"):
            look(tmp_path / "raw")


def test_two_links_to_one_folder_and_a_link_to_nothing_are_no_loop(tmp_path):
    write(tmp_path / "real" / "a.txt", "one")
    (tmp_path / "raw").mkdir()
    for name, target in (("x", "real"), ("y", "real"), ("z", "nothing")):
        (tmp_path / "raw" / name).symlink_to(tmp_path / target)
    source = PlainText(path=str(tmp_path / "raw"))
    assert texts(source) == ["one", "one"]
    assert source.identity() == source.identity()


def test_hidden_files_are_neither_read_nor_identified(tmp_path):
    root = tmp_path / ".raw"
    write(root / "a.txt", "one")
    before = fingerprint(root)
    for name in (".DS_Store", ".a.txt", ".git/b.txt", "deep/.c.txt"):
        write(root / name, "hidden")
    assert fingerprint(root) == before
    assert texts(PlainText(path=str(root))) == ["one"]


def test_hidden_episodes_are_not_read(tmp_path):
    write(tmp_path / "demos.json", "{}")
    for name in ("lift/0.tar", "lift/.1.tar", ".lift/2.tar"):
        write(tmp_path / "episodes" / name, name)
    refs = Demonstrations(path=str(tmp_path)).episodes()
    assert [ref.path.read_text() for ref in refs] == ["lift/0.tar"]
    spartan(tmp_path / "tasks" / "Lift")
    spartan(tmp_path / "tasks" / ".Trash")
    assert len(Spartan(path=str(tmp_path)).episodes()) == 1


@pytest.fixture
def scenes(tmp_path):
    """Writes an index of one image, gives what is read from it."""
    root = tmp_path / "scenes"
    image = encode_jpeg(np.zeros((4, 4, 3), np.uint8), 95)
    for name in ("elsewhere.jpg", "scenes/images/a.jpg", "scenes/.trash/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image)

    def read(name):
        row = {"image": name, "caption": "a box"}
        write(root / "scenes.jsonl", json.dumps(row) + "\n")
        (found,) = captions(SceneFolder(path=str(root)))
        return found

    return root, read


@pytest.mark.parametrize(
    "name", ["../elsewhere.jpg", "images/../../elsewhere.jpg", "{}/images/a.jpg", ".trash/b.jpg"]
)
def test_an_image_that_the_identity_does_not_cover_is_a_bad_line(scenes, name):
    root, read = scenes
    found = read(name.format(root))
    assert found.id == "scenes.jsonl:1"
    assert "not a visible file inside the source's folder (name it relative" in found.reason


def test_images_inside_are_read_also_behind_a_link(scenes):
    root, read = scenes
    (root / "link").symlink_to(root.parent)
    for name in ("images/a.jpg", "./images/../images/a.jpg"):
        assert read(name).caption == "a box"
    (root / "link").unlink()
    (root / "link.jpg").symlink_to(root.parent / "elsewhere.jpg")
    assert read("link.jpg").caption == "a box"


def test_an_index_outside_is_refused(scenes):
    root, read = scenes
    read("images/a.jpg")
    with pytest.raises(FoundryError, match=r"'\.\./scenes\.jsonl' is not a visible file"):
        captions(SceneFolder(path=str(root / "images"), index="../scenes.jsonl"))


def spartan(root):
    folder = root / "episode_0" / "processed"
    folder.mkdir(parents=True)
    arrays = {"robot__actual__x": np.zeros((2, 3)), "c": np.zeros((2, 2, 2, 3), np.uint8)}
    np.savez(folder / "observations.npz", **arrays)
    np.savez(folder / "actions.npz", actions=np.zeros((2, 20)))
    write(folder / "metadata.yaml", "camera_id_to_semantic_name: {c: front}\n")
    return root


def shown(path):
    source = Spartan(path=str(path))
    episode = source.read_episode(source.episodes()[0])
    return source.identity(), (episode.task, episode.instructions["original"])


def test_a_skill_from_above_the_root_is_part_of_the_identity(tmp_path):
    cup = spartan(tmp_path / "one" / "tasks" / "PutCup" / "diffusion_spartan")
    identity, told = shown(cup)
    assert told == ("PutCup", ["put cup"])
    mug = tmp_path / "two" / "tasks" / "TurnMug" / "diffusion_spartan"
    moved = tmp_path / "three" / "tasks" / "PutCup" / "elsewhere"
    for place in (mug, moved):
        shutil.copytree(cup, place)
    assert shown(mug)[1] == ("TurnMug", ["turn mug"])
    assert shown(mug)[0] != identity
    assert shown(moved) == (identity, told)


def test_a_skill_inside_the_root_counts_before_folders_above_it(tmp_path):
    spartan(tmp_path / "raw" / "tasks" / "PutCup" / "diffusion_spartan")
    lent = tmp_path / "tasks" / "lbm" / "raw"
    shutil.copytree(tmp_path / "raw", lent)
    for root in ("", "tasks", "tasks/PutCup", "tasks/PutCup/diffusion_spartan/episode_0"):
        assert shown(lent / root) == shown(tmp_path / "raw" / root)
        assert shown(lent / root)[1] == ("PutCup", ["put cup"])


def test_a_root_lends_no_name_that_its_identity_lacks(tmp_path):
    one = spartan(tmp_path / "one") / "episode_0"
    shutil.copytree(one, tmp_path / "episode_7")
    assert shown(one) == shown(tmp_path / "episode_7")


def test_what_is_fetched_keeps_the_skill_of_its_address(tmp_path):
    fetched = spartan(tmp_path / "tasks" / "lbm" / "scratch")
    remote = Spartan(path="s3://bucket/tasks/PutCup/raw")
    for source, task in ((remote, "PutCup"), (Spartan(path="s3://bucket/raw"), "episode_0")):
        local = source.fetched(str(fetched))
        assert local.read_episode(local.episodes()[0]).task == task


def test_an_index_beside_a_foreign_tar_does_not_decide_what_is_read(tmp_path):
    tar = tar_of(tmp_path / "t.tar", {"a.txt": b"aaa", "b.txt": b"bbb"})
    index = scan_tar(tar)
    first = build_index(
        [(index.names[0], int(index.offsets[0]), int(index.sizes[0]))], index.tar_bytes
    )
    write_index(index_path(tar), [Packed.of(first)], 1)
    assert texts(TextTars(path=str(tar))) == ["aaa", "bbb"]


def test_the_name_of_a_single_file_counts_since_it_is_in_sample_keys(tmp_path):
    image = encode_jpeg(np.zeros((4, 4, 3), np.uint8), 95)
    one = tar_of(tmp_path / "one" / "a.tar", {"x.jpg": image, "x.txt": b"a box"})
    sources = [ImageCaptionTars(path=str(one))]
    for name in ("two/a.tar", "two/b.tar"):
        (tmp_path / "two").mkdir(exist_ok=True)
        sources.append(ImageCaptionTars(path=str(shutil.copy(one, tmp_path / name))))
    ids = [captions(source)[0].id for source in sources]
    assert ids == ["a-x", "a-x", "b-x"]
    same, moved, renamed = (source.identity() for source in sources)
    assert same == moved != renamed


def test_the_name_of_a_folder_does_not_count(tmp_path):
    write(tmp_path / "one" / "a.jsonl", "{}")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (JsonLines(path=str(tmp_path / name)).identity() for name in ("one", "two"))
    assert one == two


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installs distributions: name, then file → text; RECORD lists them with made-up digests."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def install(name, files, record=True):
        info = folder / f"{name.replace('-', '_')}-1.dist-info"
        write(info / "METADATA", f"Name: {name}\nVersion: 1\n")
        lines = [f"{info.name}/METADATA,,", f"{info.name}/RECORD,,"]
        for file, text in files.items():
            write(folder / file, text)
            lines.append(f"{file},sha256=abc,30")
        if record:
            write(info / "RECORD", "\n".join(lines) + "\n")
        importlib.invalidate_caches()
        for remembered in (
            sources._installed,
            packages._distribution,
            packages._documented,
            packages._root,
        ):
            remembered.cache_clear()
        return folder, info

    return install


def test_documents_are_identified_by_what_is_read(site):
    folder, _ = site("fsp_docs", {"fsp_docs/readme.md": "one " * 60, "fsp_docs/b.so": "1"})
    source = PackageDocs(packages=("fsp_docs",))
    before = source.identity()
    assert source.identity() == before
    write(folder / "fsp_docs" / "b.so", "2")
    assert source.identity() == before, "is not read"
    readme = write(folder / "fsp_docs" / "readme.md", "two " * 60)
    assert texts(source) == [readme.read_text().strip()]
    assert source.identity() != before
    readme.unlink()
    with pytest.raises(FoundryError, match=r"'fsp_docs/readme\.md' of the installed package"):
        source.identity()


def test_settled_documents_are_not_hashed_again(site, monkeypatch):
    site("fsp_docs", {"fsp_docs/readme.md": "one " * 60})
    monkeypatch.setattr(sources, "settled", lambda stat: True)
    source = PackageDocs(packages=("fsp_docs",))
    before = source.identity()
    monkeypatch.setattr(sources, "sha256_of", lambda path: pytest.fail(f"reads {path}"))
    assert source.identity() == before


def test_documented_files_are_those_that_importlib_lists(site):
    files = {"a/b.md": 1, "a/tests/c.md": 0, "a/test/d.py": 0, "a/LICENSE.txt": 0, "a/E.RST": 1}
    files |= {"a/f, g.txt": 1, "../bin/h.py": 0, "a/test_i.py": 0, "a/__pycache__/b.pyc": 0}
    folder, info = site("fsp_many", {})
    write(info / "RECORD", "".join(f'"{f}",,\n' if "," in f else f"{f},,\n" for f in files))
    for file in files:
        write(folder / file, "text")
    packages._documented.cache_clear()
    found = packages.package_modules("fsp_many")
    assert found == [(file, 4) for file in sorted(f for f, kept in files.items() if kept)]


def test_one_distribution_has_one_name():
    spellings = ("typing_extensions", "Typing.Extensions", "typing-extensions")
    assert len({package_fingerprint(name) for name in spellings}) == 1
    assert len({PackageDocs(packages=(name,)) for name in spellings}) == 1
    assert len({str(PackageDocs(packages=(name,)).identity()) for name in spellings}) == 1


@pytest.mark.parametrize("kind", ["no record", "direct url", "finder"])
def test_what_record_does_not_say_is_hashed(site, kind):
    files = {"fsp_code/a.py": "ONE = 1\n", "fsp_code/deep/b.py": "TWO = 2\n"}
    folder, info = site("fsp-code", files, record=kind != "no record")
    if kind == "direct url":
        write(info / "direct_url.json", '{"dir_info": {"editable": true}, "url": "file:///x"}')
    if kind == "finder":
        write(info / "RECORD", "__editable__.fsp_code-1.pth,sha256=x,30\n")
    before = package_fingerprint("fsp-code")
    write(folder / "fsp_code" / "__pycache__" / "a.pyc", "compiled")
    assert package_fingerprint("fsp_code") == before
    assert "fsp_code" not in sys.modules
    edited = write(folder / "fsp_code" / "deep" / "b.py", "TWO = 3\n")
    os.utime(edited, ns=(OLD, OLD))
    assert package_fingerprint("fsp-code") != before


def test_a_package_of_which_nothing_is_found_is_refused(site):
    site("fsp-gone", {}, record=False)
    with pytest.raises(FoundryError, match="'fsp-gone' does not say which files"):
        package_fingerprint("fsp-gone")
