"""What one request, and all of them together, may cost the server."""

from __future__ import annotations

from dataclasses import dataclass

from clearmargin.images.archive import ArchiveLimits
from clearmargin.images.limits import Limits

_DECODER_SECONDS = 30.0
_MAX_DIRECTORY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Bounds of the server; each is an option of `clearmargin serve`."""

    max_file_bytes: int = 64 << 20
    """Of one file, and of one member of a zip when it is unpacked."""
    max_request_bytes: int = 512 << 20
    """Of a body, and of all its files when they are unpacked."""
    max_files: int = 2_000
    """Of a request; members of a zip count."""
    max_pixels: int = 40_000_000
    """Of one image."""
    seconds: float = 60.0
    """Of work on one request, after its body has come."""
    body_seconds: float = 60.0
    """Until a body has come."""
    idle_seconds: float = 15.0
    """Without a new byte of a body."""
    concurrency: int = 64
    """Requests with a body that are at work or waiting."""
    max_jobs: int = 100
    """That are not done."""

    @property
    def image(self) -> Limits:
        """Of one image, which is decoded in a child process whatever its kind."""
        seconds = min(_DECODER_SECONDS, self.seconds)
        return Limits(max_bytes=self.max_file_bytes, max_pixels=self.max_pixels, max_seconds=seconds, isolate="all")

    @property
    def archive(self) -> ArchiveLimits:
        """Of one zip."""
        return ArchiveLimits(
            max_members=self.max_files,
            max_total_bytes=self.max_request_bytes,
            max_directory_bytes=_MAX_DIRECTORY_BYTES,
        )
