"""Ad hoc: N raw lines in a child process; memory per line in the service, hellos/s, wake latency."""
import asyncio, sys, time, json, os, hashlib, secrets, statistics
from pathlib import Path
import tempfile
N = int(sys.argv[2]) if len(sys.argv) > 2 else 300

async def clients(url, tokens):
    from websockets.asyncio.client import connect
    from client.line import socket_url
    socks = []
    for t in tokens:
        socks.append(await connect(socket_url(url), additional_headers={"Authorization": f"Bearer {t}"}, proxy=None, compression=None, ping_interval=4, ping_timeout=3))
    print("connected", flush=True)
    hello = json.dumps({"verb": "hello", "epoch": 0, "lease_id": None})
    async def one(s):
        await s.send(hello)
        while "wake" in json.loads(await s.recv()): pass
    t0 = time.perf_counter()
    await asyncio.gather(*(one(s) for s in socks))
    t1 = time.perf_counter()
    await asyncio.gather(*(one(s) for s in socks))
    t2 = time.perf_counter()
    print(json.dumps({"first": t1 - t0, "again": t2 - t1}), flush=True)
    async def wakes(i, s):
        async for m in s:
            if "wake" in json.loads(m):
                await s.send(hello)
                print(f"woken {i} {time.time()}", flush=True)
    await asyncio.gather(*(wakes(i, s) for i, s in enumerate(socks)))

def rss():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS"))

async def main():
    from tests.support.server import found_server
    from tests.support.database import migrated_template, cloned_database
    from tests.support.service import running_service, ready, settings_for
    with tempfile.TemporaryDirectory() as d:
        async with found_server() as server, migrated_template(server) as template, cloned_database(server, template, "hubm") as database:
            owner = await database.connect("lablink")
            app = await database.connect("lablink_app")
            tokens = []
            for i in range(N):
                j, t = secrets.token_bytes(8), secrets.token_hex(32)
                dg = hashlib.sha256(j).digest()
                await owner.execute("SELECT invite_vm($1,'default',$2,3600)", f"vm-{i}", dg)
                from client.scram import verifier
                row = await app.fetchrow("SELECT e.* FROM enrol_vm($1,$2) e, LATERAL keep_hub_token($1, e.role, $3)", dg, "SCRAM-SHA-256$4096:QUFBQUFBQUFBQUFBQUFBQQ==$"+"A"*43+"=:"+"A"*43+"=", hashlib.sha256(t.encode()).digest())
                tokens.append(t)
            async with running_service(settings_for(database, Path(d), "log.level=warning")) as s:
                await ready(s.service)
                before = rss()
                child = await asyncio.create_subprocess_exec(sys.executable, __file__, "clients", str(N), s.url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
                child.stdin.write((json.dumps(tokens) + "\n").encode()); await child.stdin.drain()
                print((await child.stdout.readline()).decode().strip())
                print("hellos", (await child.stdout.readline()).decode().strip())
                print("kB per line", (rss() - before) / N, "machines", s.service.hub.machines)
                ids = [r["id"] for r in await owner.fetch("SELECT id FROM vms ORDER BY id")]
                lat = []
                await asyncio.sleep(1)
                for k in range(100):
                    t = time.time()
                    await owner.execute("SELECT fail_vm($1)", f"vm-{k}")
                    t_c = time.time()
                    line = (await child.stdout.readline()).decode().split()
                    lat.append((float(line[2]) - t_c) * 1000)
                lat.sort()
                print("wake after commit ms p50", lat[50], "p99", lat[98])
                child.kill(); await child.wait()

if sys.argv[1] == "clients":
    asyncio.run(clients(sys.argv[3], json.loads(sys.stdin.readline())))
else:
    asyncio.run(main())
