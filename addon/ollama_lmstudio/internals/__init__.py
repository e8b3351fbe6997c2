"""Every touch of mitmproxy's private API, by what it is for. Each says what is lost when it is gone.

They are written for mitmproxy 11.0.2 to 12 and pinned by tests on both. Everything that is not found where it is looked
for is taken as not being there.
"""
