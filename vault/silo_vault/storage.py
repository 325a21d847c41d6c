"""The vault's file on disk: who may read it, one writer at a time, and a save that is whole or did not happen.

Beside `credentials.silo` lie `credentials.silo.lock` (never removed; a lock on the file itself would be worth nothing, because a
save replaces it), `credentials.silo.bak` (the generation before), `credentials.silo.seen` (the newest generation that was seen
here), `credentials.silo.locked` (changes when all processes are to forget their keys) and, while a save runs,
`.credentials.silo.PID.RANDOM.tmp`. All are reached through one descriptor of their folder. What the bytes mean is
`silo_vault.format`'s, and for `.seen` `silo_vault.rollback`'s.
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
"""How often a writer that waits looks again; a save takes a few milliseconds."""


class VaultFiles:
    """The files of one vault. Holds no descriptor between two calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.backup = path.with_name(path.name + ".bak")
        self.known_generation = path.with_name(path.name + ".seen")
        self.locked = path.with_name(path.name + ".locked")

    def epoch(self) -> object:
        """Return what differs after `locked` was replaced."""
        try:
            status = self.locked.lstat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def read_beside(self, path: Path) -> bytes | None:
        """Return one of the small files beside the vault, or None if it is not there.

        Raises:
            VaultDamaged: as for `read`, but for a missing file.
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
        """Return the file, or None if there is neither file nor backup. Needs no lock: a save is one rename.

        Raises:
            VaultDamaged: it is missing while its backup is there; or it, or its folder, is open to other users, belongs to
                one, or is not a plain file.
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
        """Hold the vault's lock; makes the folder if it is missing, and removes what a killed writer left.

        Raises:
            VaultBusy: somebody else held the lock all the time.
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
                os.close(lock)  # which also lets go of the lock
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
        folder.chmod(0o700)  # a umask may have taken more away

    def _open_folder(self) -> int:
        # A link to the folder is followed: what counts is who owns the place that it leads to, and that is checked.
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError:
            raise VaultDamaged(f"{self.path.parent} is not a folder", hint="name another place for the vault") from None
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
            # Not blocking, so that a FIFO in its place can't hang us before the check below.
            file = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=folder)
        except PermissionError:
            raise VaultDamaged(
                f"{path} can't be opened: permission denied", hint=f"chmod 600 {quote(str(path))}"
            ) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise VaultDamaged(
                    f"{path} is a link, or not a file at all",
                    hint=f"put the file itself in its place: `ls -l {quote(str(path))}`",
                ) from None
            raise
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise VaultDamaged(f"{path} is not a regular file", hint=f"see what it is: `ls -l {quote(str(path))}`")
            if flags & os.O_CREAT and status.st_size == 0:
                os.fchmod(file, 0o600)  # a umask may have taken more away
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
                hint=f"as that user or root: `chown {os.geteuid()} {quote(str(path))}`, if it is yours",
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
                    f"{self.path} is missing, and its backup is there",
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
                    f"{self.path.with_name(name)} has {size} bytes, more than a vault may have",
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
            hint=f"see what is wrong there: `ls -l {quote(str(self.path))}`",
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
            hint=f"wait for it; if it hangs, end it: `kill {text}`" if text.isdecimal() else "try again",
        )

    def _sweep(self, folder: int) -> None:
        # Only the holder of the lock makes such files, so each of them belongs to a writer that is gone.
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
                hint=f"see what is wrong with the disk: `df -h {quote(str(self.path.parent))}`; the vault is as it was",
            ) from error


class Writer:
    """What may be done to the files by whoever holds the lock."""

    def __init__(self, files: VaultFiles, folder: int) -> None:
        self._files = files
        self._folder = folder

    def read(self) -> bytes | None:
        """As `VaultFiles.read`; stays true until `replace`."""
        return self._files._read(self._folder)

    def peek(self) -> bytes | None:
        """Return the file whatever it is, or None where there is nothing that could be a vault."""
        try:
            return self._files._read_file(self._folder, self._files.path.name)
        except (FileNotFoundError, VaultDamaged):
            return None

    def set_aside(self) -> Path | None:
        """Give the vault's file another name, if it is there: one that can't be opened is never overwritten. Return the name."""
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
        """Replace one of the small files beside the vault, and say whether it worked. Not flushed: losing it costs no secret."""
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
        """Put `data` in the file's place, and `previous` in the backup's.

        When it returns, the new file survives a power cut; when it raises, the file is as it was. One exception is said in
        the message: if only the last flush fails, the new file is in place but might not survive.

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
                f"the new generation of {self._files.path} is in place, but may not survive a power cut: {error.strerror}",
                hint=f"see what is wrong with the disk: `df -h {quote(str(self._files.path.parent))}`, then make the change again",
            ) from error

    def _clean(self, made: Sequence[str]) -> None:
        for leftover in made:
            with suppress(OSError):  # already renamed; or swept by the next writer
                os.unlink(leftover, dir_fd=self._folder)

    def _write(self, data: bytes, made: list[str], *, flush: bool = True) -> str:
        """Write a temporary file, flushed, and return its name, which is in `made` from before it exists."""
        name = f".{self._files.path.name}.{os.getpid()}.{os.urandom(8).hex()}.tmp"
        made.append(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=self._folder)
        try:
            os.fchmod(file, 0o600)  # a umask may have taken more away
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
    # A file in place never changes (a save makes a new one), so its size when it was opened is its size.
    pieces: list[bytes] = []
    while size > 0 and (piece := os.read(file, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
