"""One episode from a format's reader, whatever is wrong with its bytes."""

from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.sources.base import RobotFormat, SourceRef
from foundry_core.errors import FoundryError

MAX_STEPS = 1_000_000
MAX_VALUES = 200_000_000
"""Of low-dimensional numbers in one episode: 1.6 GB."""


def read_bounded(source: RobotFormat, ref: SourceRef) -> Episode:
    """The episode. Any exception of the reader becomes UnusableEpisode, so that a damaged file is
    one counted skip whatever library stumbled over it; so does an episode without steps, beyond
    the bounds, without a rate, or whose texts cannot be written."""
    try:
        episode = source.read_episode(ref)
        _check(episode)
    except UnusableEpisode:
        raise
    # MemoryError is what a lying header asks for; a real lack of memory kills the process.
    except (Exception, RecursionError, MemoryError) as error:
        reason = error.message if isinstance(error, FoundryError) else repr(error)
        raise UnusableEpisode(f"{ref.name} is not readable: {reason}", "fetch it again") from error
    return episode


def _check(episode: Episode) -> None:
    if not episode.lowdim or episode.length == 0:
        raise UnusableEpisode(f"episode {episode.id!r} has no steps", "remove it")
    values = sum(array.size for array in episode.lowdim.values())
    if episode.length > MAX_STEPS or values > MAX_VALUES:
        raise UnusableEpisode(
            f"episode {episode.id!r} has {episode.length} steps and {values} numbers, at most "
            f"{MAX_STEPS} and {MAX_VALUES} are read",
            "cut it into several",
        )
    hz = episode.hz
    if isinstance(hz, bool) or not isinstance(hz, int | float) or not 0 < hz < 1e6:
        raise UnusableEpisode(f"episode {episode.id!r} has the rate {hz!r}", "it is a number of Hz")
    spoken = [text for texts in episode.instructions.values() for text in texts]
    for text in (episode.id, episode.task, *spoken):
        if not isinstance(text, str) or not _printable(text):
            raise UnusableEpisode(
                f"episode {episode.id!r} has the text {text!r}", "texts are valid Unicode"
            )
    if not episode.id or "/" in episode.id or episode.id.startswith("."):
        raise UnusableEpisode(
            f"episode id {episode.id!r} cannot name a file", "use letters, digits, - and _"
        )


def _printable(text: str) -> bool:
    """No lone surrogates and no control characters."""
    return text.isprintable() or all(
        character.isprintable() or character in "\n\t" for character in text
    )
