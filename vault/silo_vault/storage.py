"""The files of a vault on disk: checks of owner and mode, one writer at a time, and atomic saves.

These files are beside `credentials.silo`:

- `credentials.silo.lock` is the lock file. It is never removed. A lock on the vault file itself would be useless,
  because a save replaces that file.
- `credentials.silo.bak` is the previous generation.
- `credentials.silo.seen` remembers the newest generation that was used here.
- `credentials.silo.locked` is replaced to make every process forget its keys.
- `credentials.silo.aside-N` is a file that did not open when another one was restored in its place.
- `.credentials.silo.PID.RANDOM.tmp` exists while a save runs.
- `.credentials.silo.SHA256.bak` is the next backup, until the vault file with this SHA-256 is in place.

One rename puts a new generation in place. Everything before it only adds files, and everything after it is finished by
the next writer if this one is killed. So a killed save has no effect or its whole effect, and no generation is lost
that was in the vault file or in the backup.

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
from hashlib import sha256
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
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            return self._read_file(folder, path.name)
        except FileNotFoundError:
            return None
        finally:
            _close(folder)

    def read(self) -> bytes | None:
        """Return the file, or None if there never was one. Needs no lock: one rename replaces it.

        Raises:
            VaultDamaged: the file is missing although its backup, a file that was set aside or the memory of its
                newest generation exists; or the file or its folder is open to other users, belongs to another user, or
                is of another type.
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
            _close(folder)

    @contextmanager
    def writing(self, *, timeout_s: float) -> Iterator[Writer]:
        """Hold the vault's lock. Makes the folder if it is missing, and finishes what killed writers left.

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
                with self._not_written("finish what an earlier save left"):
                    self._sweep(folder)
                yield Writer(self, folder)
            finally:
                _close(lock)  # this also releases the lock
        finally:
            _close(folder)

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
            _close(folder)
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
            _close(file)
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
            traces = self._traces(folder)
        if not traces:
            return None
        try:
            return self._read_file(folder, self.path.name)  # again: it may have been made after the first attempt
        except FileNotFoundError:
            raise self._missing(traces) from None

    def _traces(self, folder: int) -> list[str]:
        """Return the names of the files that exist only where a vault was."""
        name = re.escape(self.path.name)
        trace = re.compile(rf"{name}\.(bak|seen|aside-[0-9]+)|\.{name}\.[0-9a-f]{{64}}\.bak")
        return sorted(filter(trace.fullmatch, os.listdir(folder)))

    def _missing(self, traces: Sequence[str]) -> VaultDamaged:
        # An empty vault in its place would hide the loss, and its first save would replace what is left of it.
        back = (
            f"`silo vault restore` brings {self.backup} back"
            if self.backup.name in traces
            else "`silo vault restore FILE` brings a copy of it back"
        )
        return VaultDamaged(
            f"{self.path} is missing, but there was a vault: {', '.join(traces)} exists",
            hint=f"{back}; to start with an empty vault instead, move the other files of {self.path.name} away",
        )

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
            _close(file)

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
        next_backup = re.compile(rf"\.{re.escape(self.path.name)}\.([0-9a-f]{{64}})\.bak")
        for name in os.listdir(folder):
            if stale.fullmatch(name):
                os.unlink(name, dir_fd=folder)
            elif found := next_backup.fullmatch(name):
                self._finish_backup(folder, name, found[1])

    def _finish_backup(self, folder: int, name: str, digest: str) -> None:
        """Put the next backup in place if the save that it belongs to is complete, else remove it."""
        try:
            data = self._read_file(folder, self.path.name)
        except (FileNotFoundError, VaultDamaged):
            return  # which of the two was it? A later writer decides, when the vault file can be read again
        if sha256(data).hexdigest() == digest:
            os.rename(name, self.backup.name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
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

    def write_beside(self, path: Path, data: bytes) -> bool:
        """Replace one of the small files beside the vault; return whether it worked.

        It isn't flushed to disk, because losing it loses no secret.
        """
        made: list[str] = []
        try:
            self._rename(self._write(data, made, flush=False), path.name)
        except OSError:
            self._clean(made)
            return False
        except BaseException:
            self._clean(made)
            raise
        return True

    def is_first(self) -> bool:
        """Whether there is no vault file, and no trace of an earlier one."""
        folder, files = self._folder, self._files
        return not _exists(folder, files.path.name) and not files._traces(folder)

    def replace(self, data: bytes, *, backup: bytes | None, keeps_present: bool = False) -> Path | None:
        """Replace the vault file with `data`, and then the backup with `backup`.

        After this returns, both survive a power cut. After an error both are unchanged, with one exception that the
        message states: the new file is in place, and only the backup or the last flush failed.

        Args:
            data: the new file.
            backup: the new backup; None leaves the backup as it is.
            keeps_present: whether the present file stays, under a new name: it does not open, so nobody knows what it
                is worth. It may be of any type.

        Returns:
            the new path of the present file, if it stays.

        Raises:
            VaultNotWritten: the system refused a write, a flush or a rename.
        """
        files, made, aside = self._files, list[str](), None
        next_backup = f".{files.path.name}.{sha256(data).hexdigest()}.bak"
        try:
            with files._not_written("write the new generation"):
                new = self._write(data, made)
                if backup is not None:
                    self._write(backup, made, name=next_backup)
                if keeps_present and _exists(self._folder, files.path.name):
                    aside = self._replace_and_keep(new, made)
                else:
                    self._rename(new, files.path.name)
        except BaseException:
            self._clean(made)
            raise
        failed = "its backup is still the earlier one"
        try:
            if backup is not None:
                self._rename(next_backup, files.backup.name)
            failed = "may not survive a power cut"
            os.fsync(self._folder)
        except OSError as error:
            raise VaultNotWritten(
                f"the new generation of {files.path} is in place, but {failed}: {error.strerror}",
                hint=f"check the disk: `df -h {quote(str(files.path.parent))}`, then make the change again",
            ) from error
        return aside

    def _replace_and_keep(self, new: str, made: list[str]) -> Path:
        """Give the present file a second name, and then its first name to the file `new`; return the second name."""
        path = self._files.path
        for number in count(1):
            aside = path.with_name(f"{path.name}.aside-{number}")
            if not _exists(self._folder, aside.name):
                break
        try:
            os.link(path.name, aside.name, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            pass  # it is a folder, or this file system has no hard links
        else:
            made.append(aside.name)
            self._rename(new, path.name)
            return aside
        # A process that is killed between these two leaves no vault file. Readers then say so, because they see the
        # file that was set aside; the file that is restored is still where it was.
        self._rename(path.name, aside.name)
        try:
            self._rename(new, path.name)
        except BaseException:
            if not _exists(self._folder, path.name):
                self._rename(aside.name, path.name)
            raise
        return aside

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _clean(self, made: Sequence[str]) -> None:
        """Remove the files that a failed save made. If the first one is gone, it is in place, so the others stay."""
        for leftover in made:
            try:
                os.unlink(leftover, dir_fd=self._folder)
            except FileNotFoundError:
                return  # a signal came after the rename; the next writer finishes the save
            except OSError:
                continue  # the next writer removes it

    def _write(self, data: bytes, made: list[str], *, name: str = "", flush: bool = True) -> str:
        """Write a new file, by default a temporary one, and return its name, which is in `made` before it exists."""
        name = name or f".{self._files.path.name}.{os.getpid()}.{os.urandom(8).hex()}.tmp"
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
            _close(file)
        return name


def _close(file: int) -> None:
    with suppress(OSError):  # Linux closes it all the same; what must be on the disk was flushed before
        os.close(file)


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
