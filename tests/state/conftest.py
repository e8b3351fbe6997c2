"""Windows' rules of sharing, on any system."""

from __future__ import annotations

import pytest
from tests.state import sharing


@pytest.fixture
def windows_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse to replace, rename and remove what this process has open."""
    sharing.impose(monkeypatch)
