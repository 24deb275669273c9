"""What a single value may look like, wherever it is set or sent."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

DAY = 86_400


class Section(BaseModel):
    """Settings that belong together: none may be unknown, and none changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)


def _reference(value: str) -> str:
    if not re.match(r"(env|file|aws):.", value):
        raise ValueError("a secret is not written here but pointed to, as env:NAME, file:PATH or aws:NAME")
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""What the table `pools` takes."""
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", to_lower=True)]
Program = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Secret = Annotated[str, AfterValidator(_reference)]
