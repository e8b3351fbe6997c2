"""The life of one exchange: how it is let in, the ways in which it can go, and what each does in mitmproxy's hooks."""
