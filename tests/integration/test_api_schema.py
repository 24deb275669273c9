"""What /openapi.json promises is what is answered, whatever Schemathesis thinks of sending."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
