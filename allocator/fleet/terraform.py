"""Terraform behind one narrow interface: plan into a file, apply just that; told line by line.

python-terraform builds the command lines, nothing else: it is from 2019, its `destroy` adds a `-force` that is refused
today, and it would put variables on the command line and in its log. Here values are in a private file, and secrets in
the environment.

What Terraform prints with `-json`: https://developer.hashicorp.com/terraform/internals/machine-readable-ui
Plans and states are never read with `show`: it starts the provider each time, only to learn what types values have.
"""

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from allocator.fleet.process import Run, Terminal
from allocator.fleet.refusals import StateLocked, TerraformFailed, TerraformMissing, refusal

Action = Literal["noop", "create", "update", "replace", "delete", "remove"]

NOT_COPIED = shutil.ignore_patterns(".terraform*", "*.tfstate*", "tests")
ADOPTED = "adopted.tf"


@dataclass(frozen=True, slots=True)
class Change:
    """What a plan does to one resource. What is only taken over is a change that does nothing (noop)."""

    address: str
    kind: str
    key: str | None
    action: Action


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan in a file, and the changes it makes, in the order of their addresses."""

    path: Path
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One resource is begun or done: which of how many."""

    address: str
    action: str
    done: int
    total: int


Progress = Callable[[Step], Awaitable[None]]


async def _nobody(_step: Step) -> None:
    """Nobody is told."""


class Terraform:
    """One root module, copied into a private working directory of ours, where Terraform may write."""

    def __init__(self, root: Path, work: Path, environment: Mapping[str, str] = os.environ) -> None:
        import python_terraform  # type: ignore[import-untyped]  # a service without a fleet starts without it

        self._origin = root
        self._root = work / "terraform" / root.name
        self._work = work
        self._environment = dict(environment) | {
            "TF_DATA_DIR": str(work / ".terraform"),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }
        self.lock_seconds = 10
        """How long somebody else's lock on the state is waited for."""
        self._flag = python_terraform.IsFlagged
        self._words = python_terraform.Terraform(working_dir=str(self._root), terraform_bin_path="terraform")
        self._terminal = Terminal(work)
        self._killed: Run | None = None

    async def init(self, backend: Mapping[str, str]) -> None:
        """Get providers and modules, and open the state that `backend` names. Raises TerraformFailed.

        A terraform that we started before we were killed is waited for: it does its work to the end.
        """
        try:
            self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._killed = await self._terminal.run_of_before() or self._killed
            self._copy()
        except OSError as error:
            raise TerraformFailed("init", f"{self._work} cannot be written ({error.strerror})") from error
        settings = self._private("backend.tfbackend", "".join(f"{k} = {json.dumps(v)}\n" for k, v in backend.items()))
        await self._run("init", backend_config=str(settings), reconfigure=self._flag)

    def adopt(self, things: Mapping[str, str]) -> None:
        """Have the next plan take over what is there already: the cloud's id of each, by address."""
        blocks = [f"import {{\n  to = {address}\n  id = {json.dumps(name)}\n}}\n" for address, name in things.items()]
        (self._root / ADOPTED).write_text("".join(blocks))

    async def plan(self, variables: Mapping[str, Any], *, replace: Sequence[str] = (), destroy: bool = False) -> Plan:
        """What would become of the resources with these variables. Nothing is changed. Raises TerraformFailed.

        A lock that our own terraform left on the state when it was killed is taken away.
        """
        try:
            return await self._plan(variables, replace, destroy)
        except StateLocked as locked:
            if self._killed is None or not locked.is_of(socket.gethostname(), self._killed.at):
                raise
            await self.unlock(locked.lock)
            return await self._plan(variables, replace, destroy)

    async def unlock(self, lock: str) -> None:
        """Take a lock away that nobody holds any more. Raises TerraformFailed."""
        await self._answer("force-unlock", lock, force=self._flag)

    async def _plan(self, variables: Mapping[str, Any], replace: Sequence[str], destroy: bool) -> Plan:
        path = self._work / "plan"
        values = self._private("variables.tfvars.json", json.dumps(variables))
        options = {"replace": list(replace), "destroy": self._flag if destroy else None}
        options |= {"out": str(path), "var_file": str(values), "lock_timeout": f"{self.lock_seconds}s"}
        async with self._lines("plan", **options) as lines:
            found = [_change(line["change"]) async for line in lines if line.get("type") == "planned_change"]
        return Plan(path, tuple(sorted(filter(None, found), key=lambda change: change.address)))

    async def apply(self, plan: Plan, progress: Progress = _nobody) -> None:
        """Do what the plan says, or nothing where the state has changed since. Raises TerraformFailed.

        Cancelling it asks Terraform to stop after what it is at, and waits until its state is written.
        """
        done, total = 0, sum(change.action != "noop" for change in plan.changes)
        async with self._lines("apply", str(plan.path), lock_timeout=f"{self.lock_seconds}s") as lines:
            async for line in lines:
                if line.get("type") in ("apply_start", "apply_complete"):
                    done += line["type"] == "apply_complete"
                    await progress(Step(line["hook"]["resource"]["addr"], line["hook"]["action"], done, total))

    async def state(self) -> dict[str, Any]:
        """All resources as the state has them, by address; each is its attributes. Raises TerraformFailed."""
        written = await self._answer("state pull")
        resources = json.loads(written)["resources"] if written.strip() else []
        return {
            address: values for each in resources if each["mode"] == "managed" for address, values in _instances(each)
        }

    async def _run(self, command: str, *words: str, **options: Any) -> None:
        async with self._lines(command, *words, **options) as lines:
            async for _ in lines:
                pass

    async def _answer(self, command: str, *words: str, **options: Any) -> bytes:
        """What a command prints that changes no resource."""
        process = await asyncio.create_subprocess_exec(
            *self._words.generate_cmd_string(command, *words, **options),
            cwd=self._root,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            answer, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise TerraformFailed(command, said.decode(errors="replace").strip())
        return answer

    @asynccontextmanager
    async def _lines(self, command: str, *words: str, **options: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What the command prints, as it comes; it has ended with the block. Raises TerraformFailed."""
        argv = self._words.generate_cmd_string(command, *words, json=self._flag, **options)
        try:
            process = await self._terminal.start(argv, self._root, self._environment)
        except FileNotFoundError as error:
            raise TerraformMissing from error
        wrong: list[dict[str, Any]] = []
        try:
            yield _noting(self._terminal.lines(process), wrong)
        finally:
            await asyncio.shield(self._terminal.finish(process))
        if process.returncode:
            raise refusal(command, wrong)

    def _copy(self) -> None:
        """Copy the root, and the modules beside it, to where Terraform may write."""
        modules = self._origin.parent / "modules"
        for place in (self._origin, modules):
            copy = self._work / "terraform" / place.name
            shutil.rmtree(copy, ignore_errors=True)
            if place.is_dir():
                shutil.copytree(place, copy, ignore=NOT_COPIED)
        if not self._root.is_dir():
            raise TerraformFailed("init", f"there is no {self._origin}; fleet.root names Terraform's root for machines")

    def _private(self, name: str, text: str) -> Path:
        path = self._work / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        return path


async def _noting(lines: AsyncIterator[dict[str, Any]], wrong: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """The same lines; errors are kept."""
    async for line in lines:
        if line.get("@level") == "error":
            wrong.append(line)
        yield line


def _change(told: Mapping[str, Any]) -> Change | None:
    """A change as Terraform prints it; None where something is only read."""
    if told["action"] == "read":
        return None
    resource = told["resource"]
    return Change(resource["addr"], resource["resource_type"], resource["resource_key"], told["action"])


def _instances(resource: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Address and attributes of each instance of a resource, but for those that were replaced and are not gone yet."""
    prefix = f"{resource['module']}." if "module" in resource else ""
    for each in resource["instances"]:
        if "deposed" not in each:
            index = f"[{json.dumps(each['index_key'])}]" if "index_key" in each else ""
            yield f"{prefix}{resource['type']}.{resource['name']}{index}", each["attributes"]
