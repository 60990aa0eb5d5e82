"""The images of a batch, decoded into the memory that the batch has, cached where there is room.

Stacking images into samples and samples into batches moves every pixel twice, into memory that the
kernel has to zero first: that costs a third of what decoding them costs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from foundry_core.data.images import decode_depth, decode_image, decode_into, image_size
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.data.robot.transform_config import Augment, ImageInput
from foundry_core.data.robot.transforms import view_depth, view_images
from foundry_core.errors import FoundryError

File = np.ndarray | memoryview
# Shape → uint8 memory of that shape, to be filled.
OutputBuffer = Callable[[tuple[int, ...]], np.ndarray]


def new_buffer(shape: tuple[int, ...]) -> np.ndarray:
    """Memory outside any batch."""
    return np.empty(shape, dtype=np.uint8)


class BatchImages:
    """Memory for [rows, N, H, W, 3]; the first row that is asked for says what N, H and W are."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._pixels: np.ndarray | None = None

    def row(self, row: int) -> OutputBuffer:
        """Gives uint8 [N, H, W, 3] of the batch."""
        return partial(self._buffer, row)

    @property
    def images(self) -> np.ndarray | None:
        """uint8 [rows, N, 3, H, W], channels last in memory: most models want them so anyway. None
        where no row has images."""
        return None if self._pixels is None else self._pixels.transpose(0, 1, 4, 2, 3)

    def _buffer(self, row: int, shape: tuple[int, ...]) -> np.ndarray:
        if self._pixels is None:
            self._pixels = np.empty((self._rows, *shape), dtype=np.uint8)
        if self._pixels.shape[1:] != shape:
            raise FoundryError(
                f"images of one batch have different shapes: {self._pixels.shape[1:]} and {shape}",
                "set image.size to the (height, width) that the model takes",
            )
        return self._pixels[row]


class Room:
    """Bytes that the readers of one loader share for decoded images. What is kept stays: under a
    random order every image is as likely as any other to come next, and eviction would only add
    work."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, size: int) -> bool:
        """Whether `size` bytes were left; they are no longer."""
        if size > self._left:
            return False
        self._left -= size
        return True


class ImageReader:
    """Images of one dataset as the model takes them; decoded ones are kept where there is room."""

    def __init__(
        self,
        shards: CheckedShards,
        config: ImageInput,
        augment: Augment | None,
        room: Room,
    ) -> None:
        self._shards, self._config, self._augment = shards, config, augment
        self._cache: dict[tuple[int, str], np.ndarray] = {}
        self._room = room
        # Pixels go from the decoder into the batch where nothing is done to them.
        self._plain = config.crop == 1.0 and (
            augment is None or augment == Augment(scope=augment.scope)
        )

    def read(
        self, sample: int, names: Sequence[str], sample_key: int, output: OutputBuffer
    ) -> np.ndarray:
        """uint8 [N, 3, h, w] of the named members; UnreadableSample where one does not decode."""
        where = self._shards.where(sample)
        cached = {name: self._cache.get((sample, name)) for name in names}
        absent = [name for name, image in cached.items() if image is None]
        stored = dict(zip(absent, self._shards.several(sample, absent), strict=True))
        files = {n: stored[n] if image is None else image for n, image in cached.items()}
        # Where an episode begins, the step before it is its first: one picture, seen twice.
        repeated = len(files) < len(names)
        plain = self._plain and not repeated
        out = self._decoded_into(files, where, output) if plain else None
        if out is not None:
            decoded = dict(zip(files, out, strict=True))
        else:
            decoded = {name: _decoded(file, f"{name} of {where}") for name, file in files.items()}
            pictures = [decoded[name] for name in names]
            views = view_images(pictures, self._config, self._augment, sample_key)
            made = views.transpose(0, 2, 3, 1)
            out = output(made.shape)
            out[...] = made
        for name in absent:
            self._keep((sample, name), decoded[name])
        return out.transpose(0, 3, 1, 2)

    def _decoded_into(
        self, files: Mapping[str, File], where: str, output: OutputBuffer
    ) -> np.ndarray | None:
        """uint8 [N, H, W, 3] in the output buffer; None where an image needs more than decoding."""
        name, first = next(iter(files.items()))
        if isinstance(first, np.ndarray):
            size = (first.shape[0], first.shape[1])
        else:
            with _unreadable():
                size = image_size(first, f"{name} of {where}")
        if self._config.size not in (None, size):
            return None
        out = output((len(files), *size, 3))
        for pixels, (name, file) in zip(out, files.items(), strict=True):
            if isinstance(file, np.ndarray):
                if file.shape != pixels.shape:
                    return None
                pixels[...] = file
                continue
            with _unreadable():
                if not decode_into(file, pixels, f"{name} of {where}"):
                    return None
        return out

    def _keep(self, at: tuple[int, str], image: np.ndarray) -> None:
        """A copy: `image` may be a piece of a batch."""
        if self._room.take(image.nbytes):
            self._cache[at] = image.copy()


class DepthReader:
    """Depth of one dataset, as the model sees the pictures beside it."""

    def __init__(self, shards: CheckedShards, config: ImageInput, augment: Augment | None) -> None:
        self._shards, self._config, self._augment = shards, config, augment

    def read(self, sample: int, files: Sequence[tuple[str, float]], sample_key: int) -> np.ndarray:
        """float32 [N, h, w] in metres, 0 where there is none. files: (member, metres of a count),
        one may come twice. UnreadableSample where one does not decode."""
        where = self._shards.where(sample)
        names = [*dict(files)]
        stored = dict(zip(names, self._shards.several(sample, names), strict=True))
        with _unreadable():
            depth = [
                decode_depth(stored[name], f"{name} of {where}") * np.float32(metres)
                for name, metres in files
            ]
        return view_depth(depth, self._config, self._augment, sample_key)


def _decoded(file: File, where: str) -> np.ndarray:
    if isinstance(file, np.ndarray):
        return file
    with _unreadable():
        return decode_image(file, where)


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except FoundryError as error:
        raise UnreadableSample(error.message, error.hint) from error
