"""How the balancers are started with the ready configurations, on ports that are free."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "configs" / "balancers"
# The ports in the files.
CLIENTS = 11434
BRIDGES = (11435, 11436, 11437)
# Where Debian has them, which is not in everybody's path.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


def configured(name: str, port: int, bridges: Sequence[int]) -> str:
    """Return the text of a configuration with other ports."""
    text = (FOLDER / name).read_text()
    ports = dict(zip((CLIENTS, *BRIDGES), (port, *bridges), strict=True))
    found = re.findall(r"(?<=:)1143\d\b|(?<=listen )1143\d\b", re.sub(r"#.*", "", text))
    assert sorted(map(int, found)) == sorted(ports), "each port once"
    return re.sub(r"(:|listen )(1143\d)\b", lambda match: f"{match[1]}{ports[int(match[2])]}", text)


def command(program: str, folder: Path, port: int, bridges: Sequence[int]) -> list[str] | None:
    """Return how a balancer is started in front of bridges on these ports; None if it is not installed."""
    found = shutil.which(program, path=PATH)
    if found is None:
        return None
    path = folder / f"{program}.conf"
    if program == "haproxy":
        path.write_text(configured("haproxy.cfg", port, bridges))
        return [found, "-f", str(path)]
    path.write_text(configured("nginx.conf", port, bridges))
    # Its workers could not use the folder of a test's otherwise.
    user = ["-g", "user root;"] if sys.platform != "win32" and os.getuid() == 0 else []
    return [found, "-p", str(folder), "-c", str(path), *user]
