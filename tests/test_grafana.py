"""The dashboard for Grafana: its form, and that what it asks for is what /metrics says."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ollama_lmstudio import bundled
from ollama_lmstudio.record.record import Numbers, Record

FILE = Path(__file__).parents[1] / "configs" / "grafana.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRID_COLUMNS = 24
# Grafana puts in a duration, and a regular expression for what is chosen.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$model": ".*"}


def expressions() -> Iterator[str]:
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield expression


def test_it_is_not_offered_as_a_configuration() -> None:
    assert FILE.stem not in bundled.configurations()


def test_its_form() -> None:
    """What Grafana's schema demands (@grafana/schema), as far as it is used here."""
    assert isinstance(DASHBOARD["schemaVersion"], int)
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids) > 10
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {f"${name}" for name in names} == {"$datasource", *VARIABLES} - {"$__rate_interval"}
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= GRID_COLUMNS
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_expression_is_one(tmp_path: Path) -> None:
    """Prometheus' own tool reads them as rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    # JSON is YAML.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), newline="")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_every_metric_and_label_is_there_and_every_metric_is_shown() -> None:
    pytest.importorskip("prometheus_client", reason="the library of the extra `metrics` is not installed")
    from ollama_lmstudio.record.metrics import NAMESPACE, Metrics

    found = Metrics("1", lambda name: name, lambda: (0, 0))
    numbers = Numbers(first_token=1, load=1, generation=10**9, prompt_tokens=9, answer_tokens=9)
    found.add(Record(kind="call", upstream_model="m", key="k", status=200, numbers=numbers), 200, "/api/chat")
    text = asyncio.run(found.exposition(""))[0].decode()
    # Prometheus adds these two to each.
    told = {"instance", "job"} | set(re.findall(r'[{,](\w+)="', text))
    names = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    whole = " ".join((*expressions(), json.dumps(DASHBOARD["templating"])))
    assert set(re.findall(rf"\b(?:{NAMESPACE}|process)_\w+", whole)) <= names
    grouped = [re.split(", ?", part) for part in re.findall(r"(?:by|on|group_left) \((.*?)\)", whole)]
    assert {label for labels in grouped for label in labels if label} <= told
    assert set(re.findall(r"(\w+)(?:=~|!=|=)\"", " ".join(expressions()))) <= told
    assert {label for target in _targets() for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])} <= told
    families = set(re.findall(rf"^# TYPE ({NAMESPACE}_\w+)", text, re.MULTILINE))
    assert [name for name in sorted(families) if name not in whole] == []


def _targets() -> Iterator[dict[str, Any]]:
    for panel in PANELS:
        yield from panel["targets"]
