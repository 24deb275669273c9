"""usage: nb_measure.py WHAT...   what: lone functions crowd flushcrowd cpu sizes"""

import asyncio, os, sys, tempfile, time, hashlib, itertools, statistics, json
from pathlib import Path
import asyncpg

sys.path.insert(0, os.getcwd())
from allocator.local.postgres import running_server
from allocator import bootstrap, migrate
from tests.support.server import TestServer
from tests.support.database import PASSWORDS, migrated_template, cloned_database

CLK = os.sysconf("SC_CLK_TCK")
count = itertools.count()
TOKEN = hashlib.sha256(b"t").digest()
SINGLE = "SELECT * FROM request_vm($1, 'job', '{\"argv\": [\"echo\"]}', NULL, 'echo', $2, $2)"


def cpu_of(pid):
    total = 0
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(p) == pid or int(f[1]) == pid:
                total += int(f[11]) + int(f[12])
                if int(p) == pid:
                    total += int(f[13]) + int(f[14])
    return total / CLK


async def fill(db, n):
    su = await db.connect("postgres")
    await su.execute("SET session_replication_role = replica")
    await su.execute(
        "INSERT INTO vms (hostname, status) SELECT 'vm-' || g, 'available' FROM generate_series(1, $1::int) g", n
    )
    await su.execute("INSERT INTO vm_heartbeats (vm_id, seen_at) SELECT id, now() + interval '1 hour' FROM vms")
    await su.execute("UPDATE pools SET programs = '{echo}'")
    await su.execute(
        "INSERT INTO leases (email, status, kind, vm_id, hostname, epoch, assigned_at, ended_at, crd_command) SELECT 'old' || g || '@x.test', 'ended', 'job', g % 1000 + 1, 'vm-' || (g % 1000 + 1), 0, now(), now(), 'echo' FROM generate_series(1, 20000) g"
    )
    await su.execute(
        "INSERT INTO events (actor, db_role, kind, vm_id, hostname, lease_id) SELECT 'web', 'lablink_app', 'lease.queued', vm_id, hostname, id FROM leases"
    )
    await su.execute("RESET session_replication_role")
    for t in ("vms", "vm_heartbeats", "leases", "events", "lease_secrets", "pools"):
        await su.execute(f"VACUUM ANALYZE {t}")
    return su


async def reset(su):
    await su.execute("SET session_replication_role = replica")
    await su.execute("DELETE FROM leases WHERE live")
    await su.execute("SET lablink.rewrite_history = 'bench'; DELETE FROM events WHERE id > 20000")
    await su.execute(
        "UPDATE vms SET status='available', lease_id=NULL, email=NULL, crd_command=NULL, cleaned_epoch=epoch WHERE status <> 'available'"
    )
    await su.execute("RESET session_replication_role")
    for t in ("vms", "leases", "events", "vm_heartbeats"):
        await su.execute(f"VACUUM ANALYZE {t}")
    await su.execute("CHECKPOINT")


def p(xs, q):
    xs = sorted(xs)
    return xs[min(len(xs) - 1, int(q * len(xs)))] * 1000


async def lone(db, su, rounds=400):
    app = await db.connect("lablink_app", **{"lablink.actor": "web"})
    listener = await db.connect("lablink_app")
    await listener.add_listener("vm_updates", lambda *a: None)
    await listener.add_listener("lease_updates", lambda *a: None)
    owner = await db.connect("lablink")
    await owner.execute(
        "CREATE TABLE IF NOT EXISTS raw (id int PRIMARY KEY, n int); INSERT INTO raw SELECT g, 0 FROM generate_series(1,1000) g ON CONFLICT DO NOTHING"
    )
    raw, ours = [], []
    for i in range(rounds + 50):
        t = time.perf_counter()
        await owner.fetch(
            "WITH u AS (UPDATE raw SET n = n + 1 WHERE id = $1 RETURNING id) SELECT pg_notify('vm_updates', 'x' || id) FROM u",
            i % 1000 + 1,
        )
        raw.append(time.perf_counter() - t)
        t = time.perf_counter()
        await app.fetch(SINGLE, f"{next(count)}@x.test", TOKEN)
        ours.append(time.perf_counter() - t)
    raw, ours = raw[50:], ours[50:]
    print(
        f"lone: raw p50 {p(raw, 0.5):.3f} p99 {p(raw, 0.99):.3f}; claim p50 {p(ours, 0.5):.3f} p99 {p(ours, 0.99):.3f} ms; ratio {p(ours, 0.5) / p(raw, 0.5):.2f}"
    )
    await listener.close()


async def functions(db, su, together=0, rounds=300):
    await su.execute("ALTER SYSTEM SET track_functions = 'all'")
    await su.execute("SELECT pg_reload_conf()")
    app = await db.connect("lablink_app", **{"lablink.actor": "web"})
    n = together or 1
    for i in range(6):
        await many(app, n)
    await su.execute("SELECT pg_stat_reset()")
    await asyncio.sleep(1.5)
    await su.execute("SELECT pg_stat_reset()")
    t = time.perf_counter()
    for _ in range(rounds // n or 1):
        await many(app, n)
    took = time.perf_counter() - t
    await app.close()
    await asyncio.sleep(1)
    rows = await su.fetch(
        "SELECT funcname, calls, total_time, self_time FROM pg_stat_user_functions ORDER BY self_time DESC LIMIT 30"
    )
    claims = (rounds // n or 1) * n
    print(f"functions, {n} together: {took / claims * 1e6:.0f} us/claim wall")
    for r in rows:
        print(
            f"  {r['funcname']:28} calls/claim {r['calls'] / claims:6.2f} self {r['self_time'] / claims * 1000:7.1f} us total {r['total_time'] / claims * 1000:7.1f} us"
        )
    await su.execute("ALTER SYSTEM RESET track_functions")
    await su.execute("SELECT pg_reload_conf()")


async def many(app, n):
    if n == 1:
        return await app.fetch(SINGLE, f"{next(count)}@x.test", TOKEN)
    return await app.fetch(
        "SELECT * FROM request_vms($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)",
        [f"{next(count)}@x.test" for _ in range(n)],
        ["job"] * n,
        ['{"argv": ["echo"]}'] * n,
        [None] * n,
        ["echo"] * n,
        [TOKEN] * n,
        [TOKEN] * n,
        [None] * n,
        [None] * n,
        ["default"] * n,
    )


async def explain(db, su):
    for k, v in {
        "session_preload_libraries": "auto_explain",
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_analyze": os.environ.get("ANALYZE", "off"),
        "auto_explain.log_timing": "off",
        "auto_explain.log_triggers": "on",
        "auto_explain.log_nested_statements": "on",
        "auto_explain.log_level": "notice",
    }.items():
        await su.execute(f"ALTER ROLE lablink_app SET {k} = '{v}'")
    app = await db.connect("lablink_app", **{"lablink.actor": "web"})
    got = []
    import re, collections

    app.add_log_listener(lambda c, m: got.append(m.message))
    for i in range(20):
        await many(app, 1)
    got.clear()
    n = 100
    for i in range(n):
        await many(app, 1)
    await asyncio.sleep(0.2)
    total, calls = collections.Counter(), collections.Counter()
    for m in got:
        d = re.match(r"duration: ([\d.]+) ms  plan:\s*Query Text: (.*)", m, re.S)
        if not d:
            print(m[:200])
            continue
        q = " ".join(d[2].split())[:110]
        total[q] += float(d[1])
        calls[q] += 1
    for q, t in total.most_common(32):
        print(f"{t / n * 1000:8.0f} us {calls[q] / n:5.1f} calls  {q}")


async def bare(db, su):
    app = await db.connect("postgres")
    await app.execute("SET session_replication_role = replica")
    await app.execute("SET synchronous_commit=off")

    async def go(name, q, args):
        xs = []
        for i in range(300):
            a = args()
            t = time.perf_counter()
            await app.fetch(q, *a)
            xs.append(time.perf_counter() - t)
        print(f"bare {name}: p50 {p(xs[50:], 0.5) * 1000:.0f} us")

    await go("select 1", "SELECT 1", lambda: ())
    await go(
        "insert leases",
        "INSERT INTO leases (email, kind, deadline) VALUES ($1, 'job', now())",
        lambda: (f"{next(count)}@b.test",),
    )
    await go(
        "insert leases 200",
        "INSERT INTO leases (email, kind, deadline) SELECT $1 || g, 'job', now() FROM generate_series(1,200) g",
        lambda: (f"{next(count)}@b.test",),
    )
    await go(
        "insert event",
        "INSERT INTO events (actor, kind, vm_id, hostname, lease_id) VALUES ($1, 'job', 1, 'x', gen_random_uuid())",
        lambda: (f"{next(count)}@b.test",),
    )
    await app.execute(
        "CREATE TABLE leases2 (LIKE leases INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING GENERATED INCLUDING INDEXES)"
    )
    await go(
        "insert leases without checks",
        "INSERT INTO leases2 (email, kind, deadline) VALUES ($1, 'job', now())",
        lambda: (f"{next(count)}@b.test",),
    )
    await go(
        "insert leases without checks 200",
        "INSERT INTO leases2 (email, kind, deadline) SELECT $1 || g, 'job', now() FROM generate_series(1,200) g",
        lambda: (f"{next(count)}@b.test",),
    )
    await app.execute("CREATE TABLE leases3 (LIKE leases INCLUDING DEFAULTS INCLUDING IDENTITY)")
    await go(
        "insert leases without checks, indexes, generated",
        "INSERT INTO leases3 (email, kind, deadline, live) VALUES ($1, 'job', now(), true)",
        lambda: (f"{next(count)}@b.test",),
    )


async def crowd(db, su, pid, waiting=200, claims=9000, calls=None, conns=10):
    from allocator.store import Store
    from allocator import requesting
    from allocator.requesting import VmRequest
    from client.command import JobCommand

    async def connect(*a, **k):
        return await asyncpg.connect(db.dsn("lablink_app"), server_settings={"lablink.actor": "web"})

    listener = await db.connect("lablink_app")
    await listener.add_listener("vm_updates", lambda *a: None)
    await listener.add_listener("lease_updates", lambda *a: None)
    cmd = JobCommand(("echo", "hi"))
    async with Store.open(connect, conns) as store:

        async def one():
            e = f"{next(count)}@x.test"
            t = time.perf_counter()
            a = await store.request_vm(VmRequest(e, cmd, cmd, "t" + e, TOKEN, None, None, "default"))
            times.append(time.perf_counter() - t)
            assert a.outcome == "created"

        async def person(k):
            for _ in range(k):
                await one()

        for round_ in range(4):
            await reset(su)
            times = []
            per = max(1, claims // waiting)
            c0, o0, t0 = cpu_of(pid), time.process_time(), time.perf_counter()
            await asyncio.gather(*(person(per) for _ in range(waiting)))
            took = time.perf_counter() - t0
            c1, o1 = cpu_of(pid), time.process_time()
            n = len(times)
            left = await su.fetchval("SELECT count(*) FROM leases WHERE status='queued'")
            print(
                f"crowd {waiting} waiting, calls {1}: {n / took:8.0f}/s p50 {p(times, 0.5):.2f} p99 {p(times, 0.99):.2f} ms; pg cpu {(c1 - c0) / n * 1e6:.0f} us, own {(o1 - o0) / n * 1e6:.0f} us; queued {left}; commits {await su.fetchval('SELECT count(DISTINCT xmin::text) FROM leases')}"
            )
    await listener.close()


async def main():
    what = sys.argv[1:]
    size = int(os.environ.get("VMS", 10000))
    with tempfile.TemporaryDirectory(prefix="nb-", dir=os.environ.get("WHERE", "/dev/shm")) as d:
        settings = {"max_wal_size": "256MB", "full_page_writes": "off"}
        if "delay" in what:
            settings |= {"commit_delay": "1000", "commit_siblings": "0"}
        if os.environ.get("FSYNC"):
            settings |= {"fsync": os.environ["FSYNC"]}
        async with running_server(Path(d), clients=50, version=int(os.environ.get("PG", 18)), settings=settings) as own:
            server = TestServer(own.dsn(), 18)
            async with migrated_template(server) as template, cloned_database(server, template, "nb") as db:
                su = await fill(db, size)
                pid = own.process.pid
                for w in what:
                    if w == "bare":
                        await reset(su)
                        await bare(db, su)
                    elif w == "explain":
                        await reset(su)
                        await explain(db, su)
                    elif w == "lone":
                        await reset(su)
                        await lone(db, su)
                    elif w == "functions":
                        await reset(su)
                        await functions(db, su)
                    elif w.startswith("functions"):
                        await reset(su)
                        await functions(db, su, int(w[9:]), 4000)
                    elif w == "crowd":
                        await crowd(db, su, pid, calls=int(os.environ.get("CALLS", 2)))
                    elif w.startswith("crowd"):
                        await crowd(
                            db,
                            su,
                            pid,
                            waiting=int(w[5:]),
                            claims=int(os.environ.get("CLAIMS", 9000)),
                            calls=int(os.environ.get("CALLS", 2)),
                        )


asyncio.run(main())
