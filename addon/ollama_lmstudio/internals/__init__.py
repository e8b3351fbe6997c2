"""Every use of mitmproxy's private API, by purpose. Each function says what is lost without it.

Written for mitmproxy 11.0.2 to 12, and pinned by tests on both. What is not found where it is expected is treated as
absent: a refinement is lost, and nothing else fails. The exception is `headers`, which is checked at start.
"""
