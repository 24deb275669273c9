"""What the service writes: one line a change of state, ids as fields, and nothing that is anybody's secret."""

import logging
import sys

import structlog

from allocator.config import Log

FRAMES = 12
"""How much of a traceback is kept."""


def configure(log: Log) -> None:
    """Have everything in this process, libraries too, log to standard error in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=_ending(log), foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=log.level.upper(), force=True)
    logging.getLogger("uvicorn.machines").setLevel(logging.WARNING)  # one of 10,000 comes or goes: no news
    logging.getLogger("uvicorn.machines.words").setLevel(logging.CRITICAL)  # nor is what a stranger says wrong


def _ending(log: Log) -> list[structlog.typing.Processor]:
    bare = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log.format == "console":
        return [bare, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    # Frames without their local variables: those may be an e-mail or a code.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=FRAMES)
    return [bare, structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer()]
