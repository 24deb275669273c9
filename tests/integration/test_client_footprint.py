"""A client is small: a machine is rented for what its person does, not for what waits on it."""

import time
from pathlib import Path

from tests.support.database import Database
from tests.support.machine import Machine, Pool

LIMIT_KB = 40 * 1024


def resident_kb(pid: int) -> int:
    """The most memory that the process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


async def test_a_client_that_served_leases_stays_under_40_mb(database: Database, tmp_path: Path) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    pool = await Pool.of(database)
    began = time.monotonic()
    client = await machine.start()
    try:
        for _ in range(3):
            lease = await pool.finished(await pool.request_job(machine.job("head -c 300000 /dev/urandom | base64")))
            await pool.end(lease["id"])
            await pool.available(machine)
            if not _:
                print(f"first lease after {time.monotonic() - began:.2f} s")
        print(f"{resident_kb(client.process.pid)} kB")
        assert resident_kb(client.process.pid) < LIMIT_KB
    finally:
        await machine.stop()
