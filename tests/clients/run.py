"""Do what standard input asks for, with the functions of a client's script, until it ends.

    python -I run.py SCRIPT URL [ARGUMENT...]

Each line of standard input is a JSON list: a function's name and its arguments. Each is answered with one line of JSON:
`result`, or `raised`, the traceback. SCRIPT sees the same arguments as this.
"""

from __future__ import annotations

import json
import runpy
import sys
import traceback

if __name__ == "__main__":
    script = runpy.run_path(sys.argv[1])
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"result": script[name](*arguments)}
        except Exception:
            answer = {"raised": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
