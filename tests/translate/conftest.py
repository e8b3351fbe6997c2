"""Services with a model list that a test writes down, and the strict reader for all that is written."""

from __future__ import annotations

from tests.services import make_services, strict_reader

__all__ = ["make_services", "strict_reader"]
