"""`seqrec doctor`: checks this machine, the settings and the stores, and says what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from seqrec.errors import InputError
from seqrec.runtime.arguments import Parser
from service.doctor.checks import Finding, examine
from service.settings import Settings, load_settings

_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def doctor(argv: Sequence[str]) -> None:
    """Exit code 1 where there is an error."""
    parser = Parser(
        prog="seqrec doctor",
        description="Check versions, cores, memory, permissions, stores, address and GPU with the settings of the "
        "environment and of shop.toml. Changes nothing. Exit code: 0, or 1 where something does not work.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    try:
        findings = examine(load_settings())
    except InputError as error:
        wrong = Finding("settings", "error", str(error), "docs/configuration.md lists all settings")
        findings = [wrong, *examine(Settings.model_construct())]
    errors = sum(finding.level == "error" for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": not errors, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            print(f"{_MARKS[finding.level]:<8} {finding.check:<9} {finding.text}")
            if finding.advice:
                print(f"{'':<18} -> {finding.advice}")
        warnings = sum(finding.level == "warning" for finding in findings)
        print(f"\n{errors} errors, {warnings} warnings")
    if errors:
        sys.exit(1)
