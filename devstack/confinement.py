"""How to run a server that refuses to run as root, when we are root.

Postgres checks its user id and stops if it is 0. As an ordinary user nothing is needed. As root,
two ways are tried in turn, each a command prefix, so that the server stays our direct child:

1. a user namespace in which root looks like `nobody`: to everybody else, files stay root's;
2. the user `nobody`, keeping only CAP_DAC_OVERRIDE: containers often forbid namespaces, and with
   this capability the state and the binaries may lie below folders that `nobody` cannot enter.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devstack.process import StartError


@dataclass(frozen=True)
class Confinement:
    """A command prefix, and the user and group (ids) that must own the server's data."""

    prefix: tuple[str, ...]
    uid: int
    gid: int

    def reaches(self, *folders: Path) -> bool:
        """Whether this machine lets us run a command this way, and the command enter `folders`."""
        if not self.prefix:
            return True
        if shutil.which(self.prefix[0]) is None:
            return False
        probe = [*self.prefix, "ls", "-d", *(f"{folder}/." for folder in folders)]
        return subprocess.run(probe, capture_output=True).returncode == 0

    def own(self, folder: Path) -> None:
        """Hand `folder` and all it holds to the server's user, unless it has it already."""
        if folder.stat().st_uid == self.uid:
            return
        for parent, folders, files in os.walk(folder):
            for name in (".", *folders, *files):
                os.chown(Path(parent, name), self.uid, self.gid, follow_symlinks=False)


class ConfinementError(StartError):
    """We are root, and neither a user namespace nor `nobody` can run a server here."""


def plain() -> Confinement:
    """As the user we are."""
    return Confinement((), os.geteuid(), os.getegid())


def user_namespace() -> Confinement:
    """As ourselves, seen from inside as `nobody` (unshare(1) of util-linux).

    It must be a user that exists: initdb looks up its own name.
    """
    seen = pwd.getpwnam("nobody")
    prefix = (
        "unshare",
        "--user",
        f"--map-user={seen.pw_uid}",
        f"--map-group={seen.pw_gid}",
        "--",
    )
    return Confinement(prefix, os.geteuid(), os.getegid())


def nobody() -> Confinement:
    """As `nobody`, with the right to pass folders that are closed to it (setpriv(1))."""
    user = pwd.getpwnam("nobody")
    prefix = (
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
        "--",
    )
    return Confinement(prefix, user.pw_uid, user.pw_gid)


def best(*folders: Path) -> Confinement:
    """The first way that works on this machine and reaches `folders`.

    Raises ConfinementError when we are root and none does.
    """
    if os.geteuid() != 0:
        return plain()
    for confinement in (user_namespace(), nobody()):
        if confinement.reaches(*folders):
            return confinement
    raise ConfinementError(
        "Postgres does not run as root, and this machine lets root neither open a user namespace "
        "nor become `nobody` with CAP_DAC_OVERRIDE. Start the stack as an ordinary user."
    )
