"""The error tree: each message names the file or value, what was found and what is legal."""

from __future__ import annotations

from typing import ClassVar


class EpvsError(Exception):
    """Base of every error this program raises on purpose.

    Parameters
    ----------
    message : str
        Names the file or value, what was found and what is legal.
    hint : str
        What the user can do about it; empty where there is nothing to add.

    Attributes
    ----------
    kind : str
        Short stable name, written to the column ``error_kind``.
    exit_code : int
        What the command exits with when this error stops it.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(cls: type[EpvsError], message: str, hint: str) -> EpvsError:
    return cls(message, hint=hint)


class UsageError(EpvsError):
    """The command line, or the folder it names, cannot be used."""

    kind = "usage"
    exit_code = 2


class ConfigError(EpvsError):
    """A protocol, cluster file, manifest or model bundle cannot be used."""

    kind = "config"
    exit_code = 3


class ProtocolError(ConfigError):
    """A protocol file is malformed or holds an illegal value."""

    kind = "protocol"


class ManifestError(ConfigError):
    """A manifest or covariate table is malformed, or holds one key twice."""

    kind = "manifest"


class CountsError(ConfigError):
    """A table of counts, or of the split of the counted scans, is malformed or holds illegal values."""

    kind = "counts"


class ModelError(ConfigError):
    """A model bundle is malformed, damaged, or does not fit the run."""

    kind = "model"


class StoppedError(EpvsError):
    """The run stopped early; what is committed stays and a second start goes on."""

    kind = "stopped"
    exit_code = 5


class OutputError(EpvsError):
    """The tables or parts of an output are damaged or cannot be written."""

    kind = "output"
    exit_code = 5


class ScanError(EpvsError):
    """One scan cannot be counted; the others go on."""

    kind = "scan"


class UnreadableError(ScanError):
    """The file is missing, empty, truncated, or not of a format that is read here."""

    kind = "unreadable"


class UnsuitableImageError(ScanError):
    """The file can be read, but what it holds is not one usable 3D image."""

    kind = "unsuitable_image"


class TooLargeError(ScanError):
    """The header claims more memory than the limit; nothing was allocated."""

    kind = "too_large"


class RegistrationError(ScanError):
    """No usable transform to MNI space was found."""

    kind = "registration"


class RoiError(ScanError):
    """The basal ganglia are not in the image, or the side file that outlines them is unusable."""

    kind = "roi"


class StoreError(ScanError):
    """A prepared volume or heatmap in the store is missing or damaged."""

    kind = "store"


class PredictionError(ScanError):
    """The network gave no finite count or heatmap for this volume."""

    kind = "prediction"
