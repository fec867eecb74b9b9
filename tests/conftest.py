"""What every suite shares: an environment that is nobody's, and hypothesis without a stopwatch."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for name in [name for name in os.environ if name.startswith("BLOCKJOBS_")]:
    del os.environ[name]

# The machine may be busy: what counts is what is found, not how fast.
settings.register_profile("blockjobs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("blockjobs")
