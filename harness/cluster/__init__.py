"""The thin layer that knows Ray: it imports the domain code and never the other way round."""

import os

SETTINGS = {
    # Train's controller takes one report a worker a poll, and polls every 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Only an autoscaler makes admitted workers wait, for nodes to boot.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1200",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C ends the run at once: what is done is published.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # No banner of Tune's own; harness.watch shows progress.
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Read by Ray from the environment, some when it is imported; what the user has set stays."""
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
