"""What Terraform makes of the files that instances are given."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.terraform.conftest import ROOT


def evaluated(expression: str, directory: Path, environment: dict[str, str]) -> Any:
    """What the expression is to Terraform."""
    asked = f"base64encode(jsonencode({expression}))"
    done = subprocess.run(
        ["terraform", "console"],
        input=asked,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(base64.b64decode(json.loads(done.stdout)))


def rendered(template: str, values: dict[str, Any]) -> str:
    """The expression of that file of a module with these values in it."""
    return f'templatefile("{ROOT}/modules/{template}", {json.dumps(values)})'
