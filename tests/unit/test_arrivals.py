"""How far a machine came that did not arrive."""

import pytest

from allocator.arrivals import last_phase


@pytest.mark.parametrize(
    ("console", "phase"),
    [
        ("lablink: cloud-init 0\r\nlablink: client 40.2\r\nother\r\n", "client"),
        ("lablink: client 40.2\nlablink: failed 99\n", "client: failed"),
        ("lablink: failed 99\n", "cloud-init: failed"),
        ("lablink: </script> 9\n", "instance: running, and its console says nothing of cloud-init"),
    ],
)
def test_the_console_says_in_which_phase_a_boot_stopped(console: str, phase: str) -> None:
    assert last_phase(console) == phase
