"""Stands in for cloud-init, on an instance: fetches the user-data, and does what ours says as cloud-init would.

Only what our user-data uses is known: hostname, write_files, and scripts for every boot. `yaml` lies beside this file.
"""

import base64
import gzip
import os
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml  # type: ignore[import-untyped]

METADATA = "http://169.254.169.254/latest"
CLOUD = Path("/var/lib/cloud")


def main() -> None:
    """Do this boot's work."""
    session = _asked("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}).decode()
    fetched = _asked("user-data", "GET", {"X-aws-ec2-metadata-token": session})
    settings = yaml.safe_load(gzip.decompress(fetched))
    socket.sethostname(settings["hostname"])
    own = CLOUD / "instances" / "this"
    own.mkdir(parents=True)
    CLOUD.joinpath("instance").symlink_to(own)
    for file in settings["write_files"]:
        _write(file)
    for script in sorted((CLOUD / "scripts/per-boot").iterdir()):
        subprocess.run([script], check=True)


def _asked(path: str, method: str, headers: dict[str, str]) -> bytes:
    with urlopen(Request(f"{METADATA}/{path}", method=method, headers=headers), timeout=60) as answer:
        given: bytes = answer.read()
    return given


def _write(file: dict[str, Any]) -> None:
    content = base64.b64decode(file["content"]) if file.get("encoding") == "b64" else file["content"].encode()
    path = Path(file["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.chmod(path, int(file["permissions"], 8))


if __name__ == "__main__":
    main()
