"""Rules for all tests: in CI a skip that is not excused is a failure."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, so that a change is judged by what it changed; BRIDGE_EXPLORE=1 looks for new ones.
settings.register_profile("bridge", deadline=None, derandomize=not os.environ.get("BRIDGE_EXPLORE"))
settings.load_profile("bridge")

EXCUSED = "not needed here: "
"""How the reason of a skip begins that is no loss (a folder beside the clone that only some machines have)."""


HERE = Path(__file__).parent
REAL_API_SERVER = {"secrets", "argo", "brigade"}
"""Parameters of tests/contracts that stand for the adapters of a cluster."""


def pytest_collection_modifyitems(items):
    """Mark what needs the control plane of tests/cluster, which takes minutes to build."""
    for item in items:
        ids = set(item.callspec.id.split("-")) if hasattr(item, "callspec") else set()
        of_contract = HERE / "contracts" in item.path.parents and ids & REAL_API_SERVER
        if HERE / "cluster" in item.path.parents or of_contract:
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn skips into failures where BRIDGE_NO_SKIPS is set."""
    report = yield
    if not os.environ.get("BRIDGE_NO_SKIPS") or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if EXCUSED not in reason:
        report.outcome = "failed"
        report.longrepr = f"skipped where it must run: {reason}"
    return report
