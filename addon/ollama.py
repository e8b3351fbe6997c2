"""
The bridge from Ollama's API to LM Studio that you can see through.

    mitmdump -s addon/ollama.py                        serve on port 11434, in front of LM Studio on port 1234
    mitmweb  -s addon/ollama.py                        the same, and look at the traffic in a browser
    mitmdump -s addon/ollama.py --set demo=true        the same without LM Studio, with a built-in stand-in

All options: `mitmdump -s addon/ollama.py --options`, or the README. Touch this file to load changed code.
"""

from __future__ import annotations

import gc
import sys

# Mitmproxy loads only this file again: what it imports has to be forgotten, or the old code would stay.
for _name in [name for name in sys.modules if name.partition(".")[0] == "ollama_lmstudio"]:
    del sys.modules[_name]

# Nothing of what is imported is garbage: to look for some takes a tenth of the time.
gc.disable()
try:
    from ollama_lmstudio.addon import OllamaBridge
finally:
    gc.enable()

addons = [OllamaBridge()]
