"""The images of robot samples: decoded into the batch, cached where there is room."""

from collections.abc import Mapping, Sequence

import numpy as np

from foundry_core.data.images import decode_image
from foundry_core.data.loading.pixels import OutputBuffer, changes_nothing, fill, image_size
from foundry_core.data.loading.shards import CheckedShards, UnreadableSample
from foundry_core.data.robot.transform_config import Augment, ImageInput
from foundry_core.data.robot.transforms import view_images
from foundry_core.errors import FoundryError

File = np.ndarray | memoryview


class ImageCache:
    """Decoded images up to a bound. Filled once, never evicted: under a random order every image
    is as likely as any other to come next, and eviction would only add work."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._images: dict[tuple[int, str], np.ndarray] = {}
        self.bytes = 0

    def get(self, at: tuple[int, str]) -> np.ndarray | None:
        return self._images.get(at)

    def put(self, at: tuple[int, str], image: np.ndarray) -> None:
        """Keeps a copy: `image` may be a piece of a batch."""
        if self.bytes + image.nbytes <= self._limit:
            self._images[at] = image.copy()
            self.bytes += image.nbytes


class ImageReader:
    """Images of one dataset as the model takes them. cache_bytes bounds the decoded ones kept."""

    def __init__(
        self,
        shards: CheckedShards,
        config: ImageInput,
        augment: Augment | None,
        cache_bytes: int,
    ) -> None:
        self._shards, self._config, self._augment = shards, config, augment
        self._cache = ImageCache(cache_bytes)
        # Pixels go from the decoder into the batch where nothing is done to them.
        self._size: tuple[int, int] | None = None  # of the images, as most datasets have one
        self._plain = changes_nothing(config, augment)

    def read(
        self, episode: int, names: Sequence[str], sample_key: int, output: OutputBuffer
    ) -> np.ndarray:
        """uint8 [N, 3, h, w] of the named members; UnreadableSample where one does not decode."""
        files = self._files(episode, names)
        out = self._decoded_into(episode, files, output) if self._plain else None
        if out is None:
            images = [self._image(episode, name, file) for name, file in files.items()]
            made = view_images(images, self._config, self._augment, sample_key).transpose(
                0, 2, 3, 1
            )
            out = output(made.shape)
            out[...] = made
        return out.transpose(0, 3, 1, 2)

    def _files(self, episode: int, names: Sequence[str]) -> dict[str, File]:
        """Decoded where they are cached, else as stored."""
        cached = {name: self._cache.get((episode, name)) for name in names}
        absent = [name for name, image in cached.items() if image is None]
        stored = dict(zip(absent, self._shards.several(episode, absent), strict=True))
        return {n: stored[n] if image is None else image for n, image in cached.items()}

    def _decoded_into(
        self, episode: int, files: Mapping[str, File], output: OutputBuffer
    ) -> np.ndarray | None:
        """uint8 [N, H, W, 3] in the output buffer; None where an image needs more than decoding."""
        where = self._shards.where(episode)
        name, first = next(iter(files.items()))
        if isinstance(first, np.ndarray):
            size = (first.shape[0], first.shape[1])
        else:
            size = self._size = self._size or _size(first, f"{name} of {where}")
        if self._config.size not in (None, size):
            return None
        out = output((len(files), *size, 3))
        try:
            if not fill(files, out, where):
                return None
        except FoundryError as error:
            raise UnreadableSample(error.message, error.hint) from error
        for pixels, (name, file) in zip(out, files.items(), strict=True):
            if not isinstance(file, np.ndarray):
                self._cache.put((episode, name), pixels)
        return out

    def _image(self, episode: int, name: str, file: File) -> np.ndarray:
        if isinstance(file, np.ndarray):
            return file
        try:
            image = decode_image(file, where=f"{name} of {self._shards.where(episode)}")
        except FoundryError as error:
            raise UnreadableSample(error.message, error.hint) from error
        self._cache.put((episode, name), image)
        return image


def _size(data: memoryview, where: str) -> tuple[int, int]:
    try:
        return image_size(data, where)
    except FoundryError as error:
        raise UnreadableSample(error.message, error.hint) from error
