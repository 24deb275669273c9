"""Composes `conf/` once, checks every value, and hands out typed settings that never change."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from allocator.conf_files import ConfigError, compose_conf, kept_overrides, problems
from allocator.conf_pool import Pool
from allocator.conf_values import DAY, Domain, Name, Port, Secret, Section
from client.command import JOB_BYTES
from client.network import is_loopback
from client.protocol import TransportName

__all__ = ["ConfigError", "Pool", "Settings", "load_settings"]

HUB_CONNECTIONS = 6
"""What machines say goes over its own, so that those that come all at once keep nobody's page waiting."""

BESIDE = HUB_CONNECTIONS + 2
"""What a service opens besides those for pages and API: the hub's, its feed's and its sweeps'."""

LEAST_BODY = 3 * JOB_BYTES + 8192
"""Bytes of the longest command that is accepted, each escaped as in a form (%27), and what is sent beside it."""


class Server(Section):
    """The web side."""

    host: str
    """Address to listen on."""
    port: Port
    public_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#\s]+$")] | None
    """What people type, where it is not http://host:port: behind a proxy or with a name of its own."""
    certificate: Path | None
    """Of `public_url`'s name, if this service itself speaks TLS and no proxy in front of it does; read at start."""
    key: Path | None
    body_limit: Annotated[int, Field(ge=LEAST_BODY, le=1_048_576)]
    """Bytes that one request's body may have."""
    linger_seconds: Annotated[float, Field(ge=0, le=300)]
    """How long it serves on when it is to stop, with /readyz at 503: in which load balancers must have asked that."""

    @property
    def url(self) -> str:
        """Where people and machines find the service, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"

    @field_validator("certificate")
    @classmethod
    def _is_of_a_name(cls, certificate: Path | None, info: ValidationInfo) -> Path | None:
        if certificate and not (info.data.get("public_url") or "").startswith("https:"):
            raise ValueError("needs server.public_url=https://NAME, where NAME is what the certificate is for")
        return certificate

    @field_validator("key")
    @classmethod
    def _belongs_to_the_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("certificate") and not key:
            raise ValueError("must name the file with the private key of server.certificate")
        return key


class Login(Section):
    """A database role and where its password is."""

    user: Name
    password: Secret


class Database(Section):
    """PostgreSQL: where it is and who we are there."""

    host: Annotated[str, StringConstraints(min_length=1)]
    port: Port
    name: Name
    pooler_host: str | None
    """PgBouncer, through which pages and API ask. Whoever listens, sweeps or backs up goes to `host`."""
    pooler_port: Port | None
    tls: Literal["loopback", "verify-full"]
    """`loopback`: no TLS, and only on this machine. `verify-full`: certificate and name are checked."""
    ca_file: Path | None
    """The certificate authority of the server, needed for verify-full."""
    service: Login
    owner: Login
    connections: Annotated[int, Field(ge=2, le=500)]
    """The most that one service process opens for pages and API."""

    @property
    def all_connections(self) -> int:
        """The most that one service process opens."""
        return self.connections + BESIDE

    @property
    def pooler(self) -> "Database | None":
        """The same database by way of the pooler, if there is one."""
        if self.pooler_host is None and self.pooler_port is None:
            return None
        return self.model_copy(update={"host": self.pooler_host or self.host, "port": self.pooler_port or self.port})

    @field_validator("tls")
    @classmethod
    def _keeps_the_network_out(cls, tls: str, info: ValidationInfo) -> str:
        far = [host for host in map(info.data.get, ("host", "pooler_host")) if host and not is_loopback(host)]
        if tls == "loopback" and far:
            raise ValueError(f"must be verify-full, because {far[0]} is not this machine")
        return tls

    @field_validator("ca_file")
    @classmethod
    def _is_an_authority(cls, ca_file: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("tls") != "verify-full":
            return ca_file
        if not ca_file:
            raise ValueError("must name a file with the certificate authority of the database, for tls verify-full")
        try:
            ssl.create_default_context(cafile=ca_file)
        except ssl.SSLError:
            raise ValueError("must be a PEM file with the certificate authority of the database") from None
        except OSError as error:
            raise ValueError(f"must be a file that can be read ({error.strerror})") from None
        return ca_file


class Access(Section):
    """Who may ask for a machine."""

    domains: tuple[Domain, ...]
    """Where e-mail addresses must be; anywhere if none is named."""


class Transport(Section):
    """How machines hear of their work."""

    mode: TransportName
    host: str | None
    """What machines connect to, where that differs from `database.host`."""
    port: Port | None


class Backup(Section):
    """Where backups go, and whether the service makes them by itself; then it needs the password of database.owner."""

    to: Annotated[str, StringConstraints(pattern=r"^(/.*|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?)$")] | None
    """A directory, or s3://BUCKET/PREFIX."""
    every_hours: Annotated[float, Field(ge=0.01, le=24 * 31)] | None
    keep_days: Annotated[int, Field(ge=1, le=3650)] | None
    """Older ones are removed after each backup; the newest never is."""

    @field_validator("every_hours")
    @classmethod
    def _have_a_place(cls, every_hours: float | None, info: ValidationInfo) -> float | None:
        if every_hours and info.data.get("to") is None:
            raise ValueError("needs backup.to: a directory, or s3://BUCKET/PREFIX")
        return every_hours


class Identity(Section):
    """What an EC2 instance must show when it enrols, beside its join token. None is read while `fleet` is null."""

    fleet: Name | None
    """The tag `lablink` of our instances."""
    accounts: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")], ...]
    """AWS accounts whose instances may enrol."""
    regions: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")], ...]
    """Regions whose instances may enrol."""
    certificates: Path | None
    """A directory with the certificate that AWS signs with in each of these regions, as REGION.pem."""

    @field_validator("certificates")
    @classmethod
    def _are_there(cls, certificates: Path | None, info: ValidationInfo) -> Path | None:
        if not info.data.get("fleet"):
            return certificates
        for region in info.data.get("regions", ()):
            try:
                (certificates or Path()).joinpath(f"{region}.pem").read_bytes()
            except OSError as error:
                raise ValueError(f"must be a directory with {region}.pem ({error.strerror})") from None
        return certificates


class Sweeps(Section):
    """The periodic duties."""

    period_seconds: Annotated[float, Field(ge=0.1, le=60)]


class Fleet(Section):
    """Machines in the cloud, which Terraform makes. There are none while `settings` is null."""

    settings: Path | None
    """What the platform wrote down for them: where Terraform keeps their state, and its variables, as JSON."""
    root: Path | None
    """Terraform's root module, where it is not the one that comes with LabLink."""
    work: Path
    """Terraform's working directory, for its owner only."""
    period_seconds: Annotated[float, Field(ge=1, le=3600)]
    """How often the service compares the record with EC2. It needs the password of database.owner for that."""
    repair: bool
    """Whether it reboots machines that failed by themselves, and replaces those for which that was no help."""
    cool_down_seconds: Annotated[float, Field(ge=60, le=DAY)]
    """How long a machine that failed, or was rebooted, is left alone."""
    prices: dict[str, Annotated[float, Field(ge=0, le=10**9)]]
    """What an hour of each instance type costs here."""
    currency: str


class Log(Section):
    """What the service writes to standard error."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["json", "console"]


class Settings(Section):
    """Everything that can be set."""

    server: Server
    database: Database
    pool: Pool
    access: Access
    transport: Transport
    backup: Backup
    identity: Identity
    fleet: Fleet
    sweeps: Sweeps
    log: Log

    @property
    def database_for_machines(self) -> Database:
        """The database by the address that machines are given."""
        host, port = self.transport.host or self.database.host, self.transport.port or self.database.port
        return self.database.model_copy(update={"host": host, "port": port})

    @field_validator("transport")
    @classmethod
    def _keeps_machines_out_of_the_clear(cls, transport: Transport, info: ValidationInfo) -> Transport:
        database = info.data.get("database")
        if database and database.tls == "loopback" and transport.host and not is_loopback(transport.host):
            raise ValueError(f"database.tls must be verify-full, because {transport.host} is not this machine")
        return transport


def load_settings(overrides: Sequence[str] = (), data_dir: Path | None = None) -> Settings:
    """The settings of `conf/`, changed by those kept in `data_dir`, changed by `overrides` (`key=value` each).

    Raises ConfigError.
    """
    kept = kept_overrides(data_dir) if data_dir else []
    composed = compose_conf([*kept, *overrides])
    try:
        return Settings.model_validate(composed)
    except ValidationError as error:
        raise ConfigError("\n".join(problems(error, Settings))) from None
