from __future__ import annotations

import pytest

from controller.record.report import write_report
from tests.unit.record.sample_run import SampleRun, write_sample_run


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    """A whole run of iridium-66, recorded and reported on."""
    run = write_sample_run(tmp_path_factory.mktemp("record") / "run")
    write_report(run.run_dir, run.timeline)
    return run
