"""What an audit yields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Check:
    """One line of the audit: what was checked and how, what is required, what came out."""

    check: str
    setting: str
    required: str
    got: str
    passed: bool
