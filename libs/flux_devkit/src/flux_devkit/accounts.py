"""The user that PostgreSQL runs as, and folders that this user can reach.

PostgreSQL refuses to run as root. A caller who is root gets an unprivileged account that every Unix has; everybody
else keeps their own. An account can use a folder only if it may pass every folder above it, and a checkout below
`/root` or a test's private folder is closed to others: then a folder of the system's temporary area stands in, and
a file beside the wanted one records where (`location`), so that the next start finds it again.
"""

from __future__ import annotations

import os
import pwd
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flux_devkit.errors import MissingTool


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """The account to give up root for; None if the caller is not root and stays who they are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise MissingTool("PostgreSQL refuses to run as root, and there is no user to run it as; call: useradd -r postgres")


def reachable(path: Path, account: Account | None) -> bool:
    """Whether the account may enter the folder and every folder above it; the caller itself always may."""
    if account is None:
        return True
    return all(_may_enter(folder.stat(), account) for folder in (path, *path.parents) if folder.exists())


def folder_for(wanted: Path, account: Account | None) -> Path:
    """The folder to use: the wanted one, or the stand-in that `wanted/location` records. Made if absent."""
    wanted.mkdir(parents=True, exist_ok=True)
    wanted = wanted.resolve()
    if reachable(wanted, account):
        return wanted
    location = wanted / "location"
    # One that was cut off while it was written says nothing, and nothing would mean the working directory.
    if location.exists() and (recorded := Path(location.read_text().strip())).is_absolute() and recorded.is_dir():
        return recorded
    stand_in = Path(tempfile.gettempdir(), f"flux-{secrets.token_hex(8)}")
    location.write_text(f"{stand_in}\n")  # before it exists, so that no interruption leaves one that nobody knows
    stand_in.mkdir(mode=0o700)  # refuses one that somebody else put there
    stand_in.chmod(0o711)
    return stand_in


def give(path: Path, account: Account | None) -> None:
    """Make the account the owner of a file or an empty folder."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _may_enter(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
