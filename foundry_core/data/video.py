"""Videos through PyAV: frames by their time, and pictures into an mp4.

Colour is RGB, uint8 [H, W, 3]; depth is what one grey channel of 12 bits holds, uint16 [H, W].
"""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from foundry_core.data.images import MAX_PIXELS
from foundry_core.errors import FoundryError

# Farther ahead than this, going to a key frame is cheaper than decoding all that lies between.
_LEAP_SECONDS = 1.0
_LONGEST = 1e7
# name → options: encoders, with a key frame at every second frame, as LeRobot's own.
_ENCODERS = {
    "libsvtav1": {"crf": "30", "g": "2", "preset": "8"},
    "libx264": {"crf": "23", "g": "2"},
    "libopenh264": {"g": "2"},
}


class VideoReader:
    """Frames of one file, which is opened when the first is asked for.

    Asked for in order, each is decoded once; two are held. pixels: "rgb24", or "gray12le".
    """

    def __init__(self, path: Path, pixels: str = "rgb24") -> None:
        self._path, self._pixels = path, pixels
        self._held: deque[tuple[float, VideoFrame]] = deque(maxlen=2)
        self._frames: Iterator[VideoFrame] = iter(())
        self._container: av.container.InputContainer | None = None

    def at(self, seconds: float, tolerance: float) -> np.ndarray:
        """The frame whose time is nearest. FoundryError where it is `tolerance` seconds away or
        more, or the file is damaged."""
        if not 0 <= seconds < _LONGEST:
            raise FoundryError(f"{self._path}: there is no time {seconds} s in a video")
        with self._readable():
            self._approach(seconds, tolerance)
            time, frame = min(self._held, key=lambda held: abs(held[0] - seconds))
            if not abs(time - seconds) < tolerance:
                raise FoundryError(
                    f"{self._path} has no frame at {seconds:.6f} s: the nearest is at {time:.6f} s",
                    "time stamps and video must fit within the tolerance",
                )
            if frame.is_corrupt:  # decoders patch what they cannot read out of its neighbours
                raise FoundryError(
                    f"{self._path} is damaged: its frame at {time:.6f} s cannot be decoded whole",
                    "fetch it again",
                )
            if self._pixels.startswith("gray") and frame.format.name != self._pixels:
                raise FoundryError(
                    f"{self._path} holds {frame.format.name}, not {self._pixels}",
                    "depth is read from one channel of 12 bits",
                )
            return frame.to_ndarray(format=self._pixels)

    def _approach(self, seconds: float, tolerance: float) -> None:
        """Holds the frames on both sides of a time, as far as there are any."""
        if self._container is None:
            self._open()
        first = self._held[0][0] if self._held else 0.0
        last = self._held[-1][0] if self._held else 0.0
        if seconds <= first - tolerance or seconds > last + _LEAP_SECONDS:
            self._seek(seconds)
        while (not self._held or self._held[-1][0] < seconds) and self._advance():
            pass
        if not self._held:
            raise FoundryError(f"{self._path} holds no frame at {seconds:.6f} s or before it")

    def _open(self) -> None:
        # By its content, a file could be a playlist that leads to other files, or to the network.
        container = av.open(str(self._path.absolute()), format="mp4")
        # The context is None where the codec is unknown, to this build or to the damaged file.
        streams = container.streams.video
        context = streams[0].codec_context if streams else None
        if context is None:
            raise FoundryError(
                f"{self._path} is not a readable video: no stream of a known codec",
                "fetch it again, or install a build of PyAV (av) that has its decoder",
            )
        if context.width * context.height > MAX_PIXELS:
            raise FoundryError(
                f"{self._path} has {context.width}x{context.height} pixels",
                f"pictures of more than {MAX_PIXELS} pixels are not read",
            )
        # Frames may be larger than the header says.
        context.options = {"max_pixels": str(MAX_PIXELS)}
        self._container = container
        self._frames = container.decode(video=0)

    def _seek(self, seconds: float) -> None:
        """To the key frame before a time; to the beginning where the container's index, which goes
        by order of decoding, led behind it."""
        assert self._container is not None
        stream = self._container.streams.video[0]
        wanted = int(seconds / float(stream.time_base or 1))
        for offset in (wanted, stream.start_time or 0):
            self._held.clear()
            self._container.seek(offset, stream=stream)
            self._frames = self._container.decode(video=0)
            if self._advance() and self._held[0][0] <= seconds:
                return

    def _advance(self) -> bool:
        frame = next(self._frames, None)
        if frame is None:
            return False
        if frame.pts is None or frame.time_base is None:
            raise FoundryError(f"{self._path} has a frame without a time", "fetch it again")
        self._held.append((float(frame.pts * frame.time_base), frame))
        return True

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise FoundryError(
                f"{self._path} is not a readable video: {error}", "fetch it again"
            ) from error


def encoder() -> str:
    """The first of LeRobot's encoders that this build of PyAV has."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes a page per file
    for name in _ENCODERS:
        if name in av.codecs_available:
            return name
    raise FoundryError(
        f"this build of PyAV encodes neither {' nor '.join(_ENCODERS)}",
        "pip install av, or export the pictures losslessly",
    )


class VideoWriter:
    """An mp4 of one picture every 1/rate seconds, from 0 on: yuv420p. bytes: what the encoder has
    given out so far."""

    def __init__(self, path: Path, rate: Fraction, codec: str) -> None:
        self.path, self.frames, self.bytes = path, 0, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(path, "w")
        stream = self._container.add_stream(codec, rate=rate, options=_ENCODERS[codec])
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.pix_fmt = "yuv420p"
        self._rate = rate

    def add(self, image: np.ndarray) -> None:
        """FoundryError for odd sizes, which yuv420p cannot hold, and for changing ones."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            raise FoundryError(
                f"pictures of {height}x{width} pixels do not fit yuv420p, which halves both",
                "export them losslessly",
            )
        if not self.frames:
            self._stream.width, self._stream.height = width, height
        if (self._stream.height, self._stream.width) != (height, width):
            raise FoundryError(
                f"{self.path}: a picture of {height}x{width} pixels after others of "
                f"{self._stream.height}x{self._stream.width}",
                "convert the dataset with one image.size",
            )
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        self._mux(frame)
        self.frames += 1

    def close(self) -> None:
        """Writes what the encoder held back, and the index."""
        self._mux(None)
        self._container.close()

    def _mux(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self.bytes += packet.size
            self._container.mux(packet)
