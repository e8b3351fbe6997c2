"""The conversation page in mitmweb, at `/ollama/`: exchanges as people look at them, beside mitmweb's own page.

`rows.py` is its list, `detail.py` one exchange, `updates.py` what is new, `handlers.py` where all of it is asked for,
and `static/` the page itself. Only mitmweb loads any of it.
"""
