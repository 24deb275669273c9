"""The processes of this machine, as `ps` lists them."""

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """One process; two are the same only if they also began at the same time."""

    pid: int
    parent: int
    uid: int
    began: str
    command: str


def descendants(ancestor: int) -> set[Process]:
    """The living processes below `ancestor`."""
    everybody = processes()
    found: set[Process] = set()
    fresh = {process for process in everybody if process.parent == ancestor}
    while fresh:
        found |= fresh
        parents = {process.pid for process in fresh}
        fresh = {process for process in everybody if process.parent in parents} - found
    return found


def alive(among: set[Process]) -> set[Process]:
    """Those that still live; a new parent does not make another process of one."""
    now = {(process.pid, process.began) for process in processes()}
    return {process for process in among if (process.pid, process.began) in now}


def processes() -> list[Process]:
    """Everybody who is not a zombie."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,uid=,stat=,lstart=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=9) for line in listed.stdout.splitlines())
    return [
        Process(int(row[0]), int(row[1]), int(row[2]), " ".join(row[4:9]), row[9]) for row in rows if row[3][0] != "Z"
    ]
