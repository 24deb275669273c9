"""What the service counts about itself, and the page that Prometheus reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from allocator.views import LIVE, RequestOutcome, Tally, VmStatus

CONTENT_TYPE = CONTENT_TYPE_LATEST

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The counters of one service process. No label holds anything personal."""

    def __init__(self) -> None:
        self._own = own = CollectorRegistry()
        self._tallied = read = CollectorRegistry()
        self._up = Gauge("lablink_database_up", "Whether the database answered just now.", registry=own)
        self._vms = Gauge("lablink_vms", "Machines by status.", ["status"], registry=read)
        self._leases = Gauge("lablink_live_leases", "Leases that are not over, by status.", ["status"], registry=read)
        self._wait = Gauge("lablink_queue_oldest_seconds", "How long somebody has been waiting.", registry=read)
        self._held = Gauge(
            "lablink_waits_held", "Share of waits no longer than was told, by odds.", ["pool", "odds"], registry=read
        )
        self._waiting = Gauge("lablink_pool_waiting", "People who wait in a pool.", ["pool"], registry=read)
        self._told = Gauge(
            "lablink_pool_wait_seconds", "What whoever asks now is told, by odds.", ["pool", "odds"], registry=read
        )
        self._streams = Gauge("lablink_open_pages", "Pages that follow a lease or the pool.", registry=own)
        self._connected = Gauge("lablink_hub_machines", "Machines that are connected to this hub.", registry=own)
        self._door = Gauge("lablink_hub_waiting", "Machines that wait to be let in to this hub.", registry=own)
        self._requests = Histogram(
            "lablink_request_seconds", "Time to accept a request.", buckets=SECONDS, registry=own
        )
        self._outcomes = Counter("lablink_requests", "Requests for a machine by outcome.", ["outcome"], registry=own)
        self._swept = Counter("lablink_swept_rows", "Rows that sweeps changed.", ["duty"], registry=own)
        self._sweeps = Counter("lablink_sweeps", "Sweeps done.", ["duty"], registry=own)

    @contextmanager
    def request_timer(self) -> Iterator[None]:
        """Times one request_vm, also when it fails."""
        with self._requests.time():
            yield

    def requested(self, outcome: RequestOutcome) -> None:
        """A request for a machine was accepted, or found its earlier self."""
        self._outcomes.labels(outcome).inc()

    def swept(self, duty: str, rows: int) -> None:
        """A periodic duty was done."""
        self._sweeps.labels(duty).inc()
        self._swept.labels(duty).inc(rows)

    def page(self, tally: Tally | None, open_pages: int, hub_machines: int, hub_waiting: int) -> bytes:
        """Everything, in Prometheus's text format; without a tally (the database is down) its figures are left out."""
        self._up.set(tally is not None)
        self._streams.set(open_pages)
        self._connected.set(hub_machines)
        self._door.set(hub_waiting)
        for gauge in (self._held, self._waiting, self._told):
            gauge.clear()
        if tally is None:
            return generate_latest(self._own)
        self._fill(tally)
        return generate_latest(self._own) + generate_latest(self._tallied)

    def _fill(self, tally: Tally) -> None:
        for status in get_args(VmStatus):
            self._vms.labels(status).set(tally.vms.get(status, 0))
        for status in sorted(LIVE):
            self._leases.labels(status).set(tally.leases.get(status, 0))
        self._wait.set(tally.oldest_wait_seconds)
        for pool, shares in tally.waits_held.items():
            for odds, share in shares.items():
                self._held.labels(pool, odds).set(share)
        for each in tally.pools:
            self._waiting.labels(each.name).set(each.waiting)
            for odds, seconds in (("likely", each.eta_seconds), ("sure", each.eta_p90_seconds)):
                if seconds is not None:
                    self._told.labels(each.name, odds).set(seconds)
