"""Frames by their time, in any order; what is refused."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from foundry_core.data import video
from foundry_core.data.video import VideoReader, VideoWriter, encoder
from foundry_core.errors import FoundryError
from tests.lerobot_sets import coded, digits, read_digits

FRAMES = 40


@pytest.fixture(scope="module", params=["libsvtav1", "libx264"])
def film(request, tmp_path_factory) -> Path:
    if request.param not in av.codecs_available:
        pytest.skip(f"this PyAV has no {request.param}")
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write(path, request.param)
    return path


def write(path: Path, codec: str) -> None:
    writer = VideoWriter(path, Fraction(FRAMES), codec)
    for frame in range(FRAMES):
        writer.add(coded(0, frame))
    writer.close()


def test_frames_are_found_by_time_in_any_order(film):
    order = np.random.default_rng(0).permutation(FRAMES).tolist()
    reader = VideoReader(film)
    for frame in [*range(FRAMES), *reversed(range(FRAMES)), *order]:
        assert read_digits(reader.at(frame / FRAMES, 1e-4)) == digits(0, frame), frame


def test_a_time_between_frames_is_refused_beyond_the_tolerance(film):
    reader = VideoReader(film)
    assert read_digits(reader.at(7 / FRAMES + 0.001, 0.002)) == digits(0, 7)
    assert read_digits(reader.at(7 / FRAMES - 0.001, 0.002)) == digits(0, 7)
    with pytest.raises(FoundryError, match=r"no frame at 0.176000 s: the nearest is at 0.175000"):
        reader.at(7 / FRAMES + 0.001, 0.001)
    with pytest.raises(FoundryError, match=r"no frame at 1.000000 s: the nearest is at 0.975000"):
        reader.at(1.0, 1e-4)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_what_is_no_time_is_refused(film, seconds):
    with pytest.raises(FoundryError, match="there is no time"):
        VideoReader(film).at(seconds, 1e-4)


def test_in_order_each_frame_is_decoded_once(film, monkeypatch):
    decoded = []
    advance = VideoReader._advance
    monkeypatch.setattr(VideoReader, "_advance", lambda self: decoded.append(1) or advance(self))
    reader = VideoReader(film)
    for frame in range(FRAMES):
        reader.at(frame / FRAMES, 1e-4)
    assert len(decoded) <= FRAMES + 1


def test_frames_of_a_varying_rate_are_found_by_their_time(tmp_path):
    path = tmp_path / "varying.mp4"
    ticks = [0, 1, 5, 6, 30, 31, 32, 90]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=100)
        stream.width = stream.height = 64
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(coded(0, number), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    reader = VideoReader(path)
    for number, tick in enumerate(ticks):
        assert read_digits(reader.at(tick / 100, 1e-4)) == digits(0, number)
    with pytest.raises(FoundryError, match="no frame at"):
        reader.at(0.07, 1e-4)


def test_a_damaged_file_is_named(film, tmp_path):
    for name, data in (("short.mp4", film.read_bytes()[:2000]), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FoundryError, match=f"{name} is not a readable video"):
            VideoReader(tmp_path / name).at(0.0, 1e-4)
    with pytest.raises(FoundryError, match="absent"):
        VideoReader(tmp_path / "absent.mp4").at(0.0, 1e-4)


def test_a_picture_that_would_fill_the_memory_is_not_decoded(film, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(FoundryError, match="64x64 pixels"):
        VideoReader(film).at(0.0, 1e-4)


def test_a_playlist_is_no_video(film, tmp_path):
    path = tmp_path / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n")
    with pytest.raises(FoundryError, match=r"list.mp4 is not a readable video"):
        VideoReader(path).at(0.0, 1e-4)


def test_twelve_bits_of_depth_come_back_as_they_are(tmp_path):
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV has no libx265")
    number, row, column = np.mgrid[:5, :64, :64]
    codes = (700 * number + 13 * row + 7 * column).astype(np.uint16)
    path = tmp_path / "depth.mp4"
    options = {"x265-params": "lossless=1:keyint=1:log-level=none"}
    with av.open(path, "w") as container:
        stream = container.add_stream("libx265", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "gray12le"
        for number, code in enumerate(codes):
            frame = av.VideoFrame.from_ndarray(code, format="gray12le")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    reader = VideoReader(path, "gray12le")
    for number in (0, 1, 4, 2, 3):
        assert np.array_equal(reader.at(number / 10, 1e-4), codes[number])


def test_colour_is_no_depth(film):
    with pytest.raises(FoundryError, match="holds yuv420p, not gray12le"):
        VideoReader(film, "gray12le").at(0.0, 1e-4)


def test_sizes_that_do_not_fit_are_refused(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", Fraction(10), encoder())
    with pytest.raises(FoundryError, match="65x64 pixels do not fit"):
        writer.add(np.zeros((65, 64, 3), np.uint8))
    writer.add(coded(0, 0))
    with pytest.raises(FoundryError, match="66x66 pixels after others of 64x64"):
        writer.add(np.zeros((66, 66, 3), np.uint8))
    writer.close()
