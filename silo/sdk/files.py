"""Files that a tool takes or returns: bytes with a media type and a name. Calls, schemas and the wire are elsewhere.

`silo.model` re-exports `File`, so that host and skill use the same class. `silo.calls.files` decides which paths of
the host a call may read; `silo.wire` carries files between host and guest.

Every skill loads this module, so slow modules are imported where they are used: `tempfile` (5 ms).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

DEFAULT_MEDIA_TYPE: Final = "application/octet-stream"
"""The media type of unknown bytes (RFC 2046 §4.5.1)."""

_MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".avif": "image/avif",
        ".bin": DEFAULT_MEDIA_TYPE,
        ".bmp": "image/bmp",
        ".css": "text/css",
        ".csv": "text/csv",
        ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".gif": "image/gif",
        ".gz": "application/gzip",
        ".html": "text/html",
        ".ico": "image/vnd.microsoft.icon",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".js": "text/javascript",
        ".json": "application/json",
        ".jsonl": "application/jsonl",
        ".md": "text/markdown",
        ".mp3": "audio/mpeg",
        ".mp4": "video/mp4",
        ".ndjson": "application/x-ndjson",
        ".parquet": "application/vnd.apache.parquet",
        ".pdf": "application/pdf",
        ".png": "image/png",
        ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ".svg": "image/svg+xml",
        ".tar": "application/x-tar",
        ".tif": "image/tiff",
        ".tiff": "image/tiff",
        ".toml": "application/toml",
        ".tsv": "text/tab-separated-values",
        ".txt": "text/plain",
        ".wav": "audio/wav",
        ".webp": "image/webp",
        ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".xml": "application/xml",
        ".yaml": "application/yaml",
        ".zip": "application/zip",
    }
)
# silo has its own table because the standard library's `mimetypes` reads files of the machine: host and guest could
# disagree.


@dataclass(frozen=True)
class File:
    """Bytes with a media type and a name; a tool takes it as a parameter, or returns it.

    Attributes:
        data: the whole content. `repr` leaves it out.
        media_type: `type/subtype` (RFC 6838), without parameters.
        name: a bare file name such as `sales.csv`, or empty. It is a label and never opened as a path.
    """

    data: bytes = field(repr=False)
    media_type: str = DEFAULT_MEDIA_TYPE
    name: str = ""

    def __post_init__(self) -> None:
        data: object = self.data  # a skill may pass another type than the annotation says
        if isinstance(data, bytearray | memoryview):
            object.__setattr__(self, "data", bytes(data))
        elif not isinstance(data, bytes):
            raise TypeError(f"File takes bytes, not {type(data).__name__}; encode text with `text.encode()`")

    @classmethod
    def from_path(cls, path: str | Path, *, media_type: str | None = None, name: str | None = None) -> File:
        """Read a whole file.

        Args:
            path: the file to read.
            media_type: default: by the suffix of the name, `application/octet-stream` if the suffix is unknown.
            name: default: the last part of `path`.

        Raises:
            OSError: the file can't be read.
        """
        path = Path(path)
        return cls(path.read_bytes(), media_type or guess_media_type(path.name), path.name if name is None else name)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def text(self, encoding: str = "utf-8") -> str:
        """Return the content as text; a byte order mark is dropped.

        Raises:
            UnicodeDecodeError: the content is not text in that encoding.
        """
        return self.data.decode("utf-8-sig" if encoding.lower().replace("_", "-") in {"utf-8", "utf8"} else encoding)

    def save(self, folder: str | Path | None = None) -> Path:
        """Write the content to a new file, for libraries that need a path, and return its path.

        The file keeps the suffix of `name`, is readable by this user only, and never replaces another one.

        Args:
            folder: an existing folder. Default: a new one under the temporary folder, which disappears with the guest.

        Raises:
            OSError: the file can't be written; `FileExistsError` if `folder` has a file of that name.
        """
        if folder is None:
            import tempfile

            folder = tempfile.mkdtemp(prefix="silo-file-")
        # Only the last part is used: an agent gives the name, and must not choose the folder.
        bare = self.name.replace("\\", "/").rpartition("/")[2].replace("\0", "")
        path = Path(folder) / (bare if bare.strip(". ") else "file" + guess_extension(self.media_type))
        with open(path, "xb", opener=_open_private) as stream:
            stream.write(self.data)
        return path


def guess_media_type(name: str) -> str:
    """Return the media type for the suffix of a file name, or `application/octet-stream`."""
    dot = name.rfind(".")
    return _MEDIA_TYPES.get(name[dot:].lower(), DEFAULT_MEDIA_TYPE) if dot >= 0 else DEFAULT_MEDIA_TYPE


def guess_extension(media_type: str) -> str:
    """Return the usual suffix of file names for a media type, with its dot; `.bin` for an unknown one."""
    wanted = media_type.lower()
    return next((ending for ending, known in _MEDIA_TYPES.items() if known == wanted), ".bin")


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
