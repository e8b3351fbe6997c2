"""Templates that Go parses, and those that it does not, with its error texts, which were taken from Go 1.26."""

from __future__ import annotations

import pytest

from ollama_lmstudio.ollama.templates import TemplateError, check_template

CHATML = """{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{- range $i, $m := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if and (eq .Role "assistant") (or .ToolCalls (ne .Content "")) }}<|im_start|>assistant
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ json .Function.Arguments }}}{{ break }}
{{- else }}{{ $m.Content | printf "%s" }}{{ end }}{{/* no calls */}}
{{- else with .Thinking }}{{ . }}{{ end }}
{{- if not $last }}
{{ end }}{{- end }}"""


@pytest.mark.parametrize(
    "template",
    [
        "",
        "plain",
        "{{ .Prompt }}",
        CHATML.replace("{{- else with .Thinking }}{{ . }}", ""),
        '{{ define "T" }}{{ . }}{{ end }}{{ template "T" .X }}{{ block "B" . }}{{ end }}',
        "{{ $x := 1.5e3 }}{{ $x = 0x_1F }}{{ $x }}{{ 1+2i }}{{ 'c' }}{{ `raw\n` }}",
        "{{ with .A }}{{ else with .B }}{{ end }}",
        "} {",
        "{{ .X | }}",
        f"{{{{ {2**64 - 1} 1e308 017 0x1p-2 }}}}".replace("017", "-017"),
        "{{ currentDate }}",
    ],
)
def test_what_go_parses(template: str) -> None:
    check_template(template)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{", ":1: unclosed action"),
        ("a\n{{ .X", ":2: unclosed action"),
        ("{{ .X\n\n", ":3: unclosed action started at :1"),
        ("{{ /* x", ':1: unexpected "/" in command'),
        ("{{/* x", ":1: unclosed comment"),
        ("{{/* x */ }}", ":1: comment ends before closing delimiter"),
        ('{{ "x }}', ":1: unterminated quoted string"),
        ("{{ `x }}", ":1: unterminated raw quoted string"),
        ("{{ 'x }}", ":1: unterminated character constant"),
        ("{{ 'xy' }}", ":1: malformed character constant: 'xy'"),
        ('{{ "\\q" }}', ":1: invalid syntax"),
        ("{{ if .X }}", ":1: unexpected EOF"),
        ("{{ end }}", ":1: unexpected {{end}}"),
        ("{{ else }}", ":1: unexpected {{else}}"),
        ("{{ if .X }}{{ else }}{{ else }}{{ end }}", ":1: expected end; found {{else}}"),
        (CHATML, ":10: unexpected <with> in input"),
        ("{{ if }}{{ end }}", ":1: missing value for if"),
        ("{{ }}", ":1: missing value for command"),
        ("{{ .X | 5 }}", ":1: non executable command in pipeline stage 2"),
        ("{{ tojson .X }}", ':1: function "tojson" not defined'),
        ("{{ $x }}", ':1: undefined variable "$x"'),
        ("{{ (.X }}", ":1: unclosed left paren"),
        ("{{ .X) }}", ":1: unexpected right paren"),
        ("{{ .X#y }}", ":1: bad character U+0023 '#'"),
        ("{{ \u2318 }}", ":1: unrecognized character in action: U+2318 '\u2318'"),
        ("{{ 08 }}", ':1: integer overflow: "08"'),
        (f"{{{{ {2**64} }}}}", f':1: integer overflow: "{2**64}"'),
        (f"{{{{ {10**300} }}}}", f':1: integer overflow: "{10**300}"'),
        (f"{{{{ {'1' * 5000} }}}}", f':1: illegal number syntax: "{"1" * 5000}"'),
        ("{{ 1e999 }}", ':1: illegal number syntax: "1e999"'),
        ("{{ 0x }}", ':1: illegal number syntax: "0x"'),
        ("{{ 3k }}", ':1: bad number syntax: "3k"'),
        ("{{ break }}", ":1: {{break}} outside {{range}}"),
        ("{{ range $a, $b, $c := .X }}{{ end }}", ":1: too many declarations in range"),
        ("{{ 1.X }}", ':1: bad number syntax: "1.X"'),
        ("{{ nil.X }}", ':1: unexpected . after term "nil"'),
        ("{{ template }}", ':1: unexpected "}}" in template clause'),
        ('{{ define "T" }}a{{ end }}{{ define "T" }}b{{ end }}', ':1: template: multiple definition of template "T"'),
        # Jinja, as models have it.
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", ":1: bad character U+005B '['"),
        ("{{ messages }}", ':1: function "messages" not defined'),
    ],
)
def test_what_go_does_not_parse(template: str, error: str) -> None:
    with pytest.raises(TemplateError) as refused:
        check_template(template)
    assert str(refused.value) == f"template: {error}"


def test_one_that_is_nested_too_deep_is_let_through() -> None:
    check_template("{{ if .X }}" * 5000 + "{{ end }}" * 5000)
