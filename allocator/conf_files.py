"""Reads the YAML of `conf/` with Hydra, and says in words what is wrong with a setting."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

LEFT_OUT = [f"~hydra/{group}" for group in ("output", "launcher", "sweeper", "help", "hydra_help", "env")]
LEFT_OUT += [f"~hydra/{group}" for group in ("hydra_logging", "job_logging")]
"""What Hydra reads for programs that it runs itself: a third of the time that it takes."""

KEPT = "overrides"
"""The file in a data directory that holds its settings, one `key=value` a line."""


class ConfigError(Exception):
    """The configuration is wrong; one line a problem, with the setting's full name and what is allowed."""


def conf_directory() -> Path:
    """Where the YAML files are: beside this file in an installed wheel, at the top of a checkout."""
    here = Path(__file__).parent
    return next(place for place in (here / "conf", here.parent / "conf") if (place / "config.yaml").is_file())


def kept_overrides(data_dir: Path) -> list[str]:
    """The settings that a data directory keeps. Raises ConfigError when it has none: it is not a data directory."""
    try:
        lines = (data_dir / KEPT).read_text().splitlines()
    except OSError as error:
        said = (error.strerror or "").lower()
        raise ConfigError(
            f"{data_dir} has no settings in a file {KEPT} ({said}): is it the right --data-dir?"
        ) from error
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def override(key: str, value: str) -> str:
    """`key=value`, quoted so that any text arrives as it is.

    A backslash counts only before what it takes the meaning from: an interpolation (OmegaConf's grammar), then a quote
    (Hydra's).
    """
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    quoted = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), plain)
    return f"{key}='{quoted}'"


def compose_conf(overrides: Sequence[str]) -> dict[str, Any]:
    """`conf/` with `overrides` applied, of which the last of a key counts; values are not checked yet."""
    directory = conf_directory()
    latest = {parsed.key_or_group: parsed for parsed in map(_parsed, overrides)}
    try:
        with initialize_config_dir(str(directory), version_base="1.3"):
            ours = [_hydra_override(directory, each) for each in latest.values()]
            composed = compose("config", overrides=[*LEFT_OUT, *ours])
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise ConfigError("\n".join(f"{key}: is not set; give {key}=…" for key in missing))
        return dict(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def _parsed(text: str) -> Override:
    key, equals, _ = text.partition("=")  # the value stays out of messages: it may be a password
    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException as error:
        advice = "quote a value that has odd letters" if equals else "write key=value"
        raise ConfigError(f"{key}: cannot be read; {advice}.") from error
    if parsed.is_delete() or parsed.is_sweep_override():
        raise ConfigError(f"{key}: cannot be read; write key=value, a list as key=[a,b].")
    return parsed


def _hydra_override(directory: Path, parsed: Override) -> str:
    """A choice of a group as it is, if there is that choice; a value so that Hydra leaves the checking to us."""
    key, value = parsed.key_or_group, parsed.get_value_element_as_str()
    if not (directory / key).is_dir():
        return f"++{key}={value}"
    choices = sorted(file.stem for file in (directory / key).glob("*.yaml"))
    if value not in choices:
        raise ConfigError(f"{key}: should be {' or '.join(choices)}, not {value!r}")
    return f"{key}={value}"


def problems(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One sentence for each thing that `model` refused."""
    for detail in error.errors(include_url=False):
        name = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            yield f"{name}: {_unknown(detail['loc'], model)}"
        else:
            yield f"{name}: {_wish(detail)}"


def _unknown(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    for step in location[:-1]:
        inner = model.model_fields[str(step)].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        model = inner
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    where = ".".join(map(str, location[:-1])) or "the configuration"
    guess = f"did you mean {close[0]}?" if close else f"{where} has {', '.join(known)}."
    return f"there is no such setting; {guess}"


def _wish(detail: ErrorDetails) -> str:
    """What is allowed, and what was given unless that may be a secret."""
    said = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = detail["input"]
    shown = f", not {given!r}" if isinstance(given, str | int | float) and "password" not in detail["loc"] else ""
    return f"{said[:1].lower()}{said[1:]}{shown}"
