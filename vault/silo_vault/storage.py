"""The files of a vault on disk: checks of owner and mode, one writer at a time, and atomic saves.

These files are beside `credentials.silo`:

- `credentials.silo.lock` is the lock file. It is never removed. A lock on the vault file itself would be useless,
  because a save replaces that file.
- `credentials.silo.bak` is the previous generation.
- `credentials.silo.seen` remembers the newest generation that was used here.
- `credentials.silo.locked` is replaced to make every process forget its keys.
- `.credentials.silo.PID.RANDOM.tmp` exists while a save runs.

All are opened through one descriptor of their folder. `silo_vault.format` interprets the bytes of the vault file, and
`silo_vault.rollback` those of `.seen`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from shlex import quote

from silo_vault.errors import VaultBusy, VaultDamaged, VaultNotWritten
from silo_vault.format import MAX_FILE_BYTES

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.05
"""A waiting writer retries after the first, then doubles it up to the longest. A save takes a few milliseconds."""


class VaultFiles:
    """The files of one vault. Keeps no descriptor open between calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.backup = path.with_name(path.name + ".bak")
        self.known_generation = path.with_name(path.name + ".seen")
        self.locked = path.with_name(path.name + ".locked")

    def epoch(self) -> object:
        """Return a value that differs after the `.locked` file was replaced."""
        try:
            status = self.locked.lstat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def read_beside(self, path: Path) -> bytes | None:
        """Return one of the small files beside the vault, or None if it is not there.

        Raises:
            VaultDamaged: as for `read`, except that the file may be missing.
        """
        try:
            folder = self._open_folder()
        except FileNotFoundError:
            return None
        try:
            return self._read_file(folder, path.name)
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)

    def read(self) -> bytes | None:
        """Return the file, or None if there is neither file nor backup. Needs no lock: a save ends with one rename.

        Raises:
            VaultDamaged: the file is missing although there is a backup; or the file or its folder is open to other
                users, belongs to another user, or is of another type.
        """
        try:
            folder = self._open_folder()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            return self._read(folder)
        finally:
            os.close(folder)

    @contextmanager
    def writing(self, *, timeout_s: float) -> Iterator[Writer]:
        """Hold the vault's lock. Makes the folder if it is missing, and removes temporary files of killed writers.

        Raises:
            VaultBusy: another process held the lock all the time.
            VaultDamaged: as for `read`.
            VaultNotWritten: the lock file or the folder can't be made.
        """
        with self._not_written("make the folder or the lock file"):
            self._make_folder()
            folder = self._open_folder()
        try:
            with self._not_written("open the lock file"):
                lock = self._open_checked(folder, self.path.name + ".lock", os.O_RDWR | os.O_CREAT)
            try:
                self._acquire(lock, timeout_s)
                with self._not_written("remove what an earlier save left"):
                    self._sweep(folder)
                yield Writer(self, folder)
            finally:
                os.close(lock)  # this also releases the lock
        finally:
            os.close(folder)

    # --- folder and files -------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        folder = self.path.parent
        if folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        folder.chmod(0o700)  # the umask may have removed more

    def _open_folder(self) -> int:
        # A link to the folder is followed. The owner of its target is what matters, and is checked below.
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError:
            raise VaultDamaged(
                f"{self.path.parent} is not a folder", hint="choose another path for the vault"
            ) from None
        except PermissionError:
            raise VaultDamaged(
                f"{self.path.parent} can't be opened: permission denied",
                hint=f"chmod 700 {quote(str(self.path.parent))}",
            ) from None
        try:
            self._check(os.fstat(folder), self.path.parent, mode="700")
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _open_checked(self, folder: int, name: str, flags: int) -> int:
        path = self.path.with_name(name)
        try:
            # Non-blocking, so that opening a FIFO doesn't hang before the check below.
            file = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=folder)
        except PermissionError:
            raise VaultDamaged(
                f"{path} can't be opened: permission denied", hint=f"chmod 600 {quote(str(path))}"
            ) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise VaultDamaged(
                    f"{path} is a link or not a file",
                    hint=f"replace it with the file itself; `ls -l {quote(str(path))}` shows what it is",
                ) from None
            raise
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise VaultDamaged(f"{path} is not a regular file", hint=f"`ls -l {quote(str(path))}` shows what it is")
            if flags & os.O_CREAT and status.st_size == 0:
                os.fchmod(file, 0o600)  # the umask may have removed more
                status = os.fstat(file)
            self._check(status, path, mode="600")
        except BaseException:
            os.close(file)
            raise
        return file

    def _check(self, status: os.stat_result, path: Path, *, mode: str) -> None:
        if status.st_uid != os.geteuid():
            raise VaultDamaged(
                f"{path} belongs to another user (uid {status.st_uid})",
                hint=f"if it is yours, run `chown {os.geteuid()} {quote(str(path))}` as that user or as root",
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise VaultDamaged(
                f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})",
                hint=f"chmod {mode} {quote(str(path))}",
            )

    def _read(self, folder: int) -> bytes | None:
        try:
            return self._read_file(folder, self.path.name)
        except FileNotFoundError:
            if _exists(folder, self.backup.name):
                raise VaultDamaged(
                    f"{self.path} is missing, but its backup exists",
                    hint=f"`silo vault restore` brings {self.backup} back",
                ) from None
            return None

    def _read_file(self, folder: int, name: str) -> bytes:
        try:
            file = self._open_checked(folder, name, os.O_RDONLY)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            size = os.fstat(file).st_size
            if size > MAX_FILE_BYTES:
                raise VaultDamaged(
                    f"{self.path.with_name(name)} has {size} bytes, more than a vault can have",
                    hint=f"its backup is {self.backup}",
                )
            return _read_all(file, size)
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(file)

    def _unreadable(self, error: OSError) -> VaultDamaged:
        return VaultDamaged(
            f"{self.path} can't be read: {error.strerror}",
            hint=f"look at its owner and mode: `ls -l {quote(str(self.path))}`",
        )

    # --- the lock ---------------------------------------------------------------------------------------------------

    def _acquire(self, lock: int, timeout_s: float) -> None:
        deadline, wait_s = time.monotonic() + timeout_s, _FIRST_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self._busy(lock, timeout_s)
            time.sleep(min(wait_s, max(0.0, deadline - time.monotonic())))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        with self._not_written("write the lock file"):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _busy(self, lock: int, timeout_s: float) -> None:
        text = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        who = f"process {text}" if text.isdecimal() else "another process"
        raise VaultBusy(
            f"{who} has been writing {self.path} for more than {timeout_s:g} s",
            hint=f"wait for it; if it hangs, stop it: `kill {text}`" if text.isdecimal() else "try again",
        )

    def _sweep(self, folder: int) -> None:
        # Only the holder of the lock makes such files, so each of them is left from a writer that no longer runs.
        stale = re.compile(rf"\.{re.escape(self.path.name)}\.[0-9]+\.[0-9a-f]{{16}}\.tmp")
        for name in os.listdir(folder):
            if stale.fullmatch(name):
                os.unlink(name, dir_fd=folder)

    @contextmanager
    def _not_written(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VaultNotWritten(
                f"cannot {action} of {self.path}: {error.strerror}",
                hint=f"check the disk: `df -h {quote(str(self.path.parent))}`; the vault is unchanged",
            ) from error


class Writer:
    """The operations that need the lock."""

    def __init__(self, files: VaultFiles, folder: int) -> None:
        self._files = files
        self._folder = folder

    def read(self) -> bytes | None:
        """As `VaultFiles.read`. The result stays current until `replace`."""
        return self._files._read(self._folder)

    def peek(self) -> bytes | None:
        """Return the bytes of the file, or None if it is missing or can't be a vault; ignores the backup."""
        try:
            return self._files._read_file(self._folder, self._files.path.name)
        except (FileNotFoundError, VaultDamaged):
            return None

    def set_aside(self) -> Path | None:
        """Rename the vault file, if it exists, and return its new path.

        `restore` uses this, so that it never overwrites a file that can't be opened.
        """
        files = self._files
        if not _exists(self._folder, files.path.name):
            return None
        for number in count(1):
            aside = files.path.with_name(f"{files.path.name}.aside-{number}")
            if not _exists(self._folder, aside.name):
                break
        with files._not_written("set aside the present file"):
            os.rename(files.path.name, aside.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        return aside

    def write_beside(self, path: Path, data: bytes) -> bool:
        """Replace one of the small files beside the vault; return whether it worked.

        It isn't flushed to disk, because losing it loses no secret.
        """
        made: list[str] = []
        try:
            os.rename(self._write(data, made, flush=False), path.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            self._clean(made)
            return False
        except BaseException:
            self._clean(made)
            raise
        return True

    def replace(self, data: bytes, *, previous: bytes | None) -> None:
        """Replace the vault file with `data`, and the backup with `previous`.

        After this returns, the new file survives a power cut. After an error the file is unchanged, with one exception
        that the message states: if only the last flush failed, the new file is in place but might not survive.

        Raises:
            VaultNotWritten: the system refused a write, a flush or a rename.
        """
        name, backup = self._files.path.name, self._files.backup.name
        made: list[str] = []
        try:
            with self._files._not_written("write the new generation"):
                new = self._write(data, made)
                if previous is not None:
                    os.rename(self._write(previous, made), backup, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                os.rename(new, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            self._clean(made)
            raise
        try:
            os.fsync(self._folder)
        except OSError as error:
            raise VaultNotWritten(
                f"the new generation of {self._files.path} is in place, "
                f"but may not survive a power cut: {error.strerror}",
                hint=f"check the disk: `df -h {quote(str(self._files.path.parent))}`, then make the change again",
            ) from error

    def _clean(self, made: Sequence[str]) -> None:
        for leftover in made:
            with suppress(OSError):  # it was renamed already, or the next writer removes it
                os.unlink(leftover, dir_fd=self._folder)

    def _write(self, data: bytes, made: list[str], *, flush: bool = True) -> str:
        """Write a temporary file and return its name. The name is added to `made` before the file exists."""
        name = f".{self._files.path.name}.{os.getpid()}.{os.urandom(8).hex()}.tmp"
        made.append(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=self._folder)
        try:
            os.fchmod(file, 0o600)  # the umask may have removed more
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            if flush:
                os.fsync(file)
        finally:
            os.close(file)
        return name


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read_all(file: int, size: int) -> bytes:
    # The size can't change after opening: a save makes a new file.
    pieces: list[bytes] = []
    while size > 0 and (piece := os.read(file, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
