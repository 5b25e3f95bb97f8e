"""The thin layer that knows Ray: it imports the domain code and never the other way round."""

import os

SETTINGS = {
    # Train's controller takes one report a worker a poll, and polls every 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # How often it looks for notices that a machine will be taken away: some clouds give no more than 30 s.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is heard by harness.commands.stopping, which lets stages save their step.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # No banner of Tune's own; harness.watch shows progress.
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Read by Ray from the environment, some when it is imported; what the user has set stays."""
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

STORE_SETTINGS = (
    "NCA_CACHE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "STORAGE_EMULATOR_HOST",
)
"""Where object stores are, for the workers of a cluster. No secret is among them: what a job passes on is shown on
Ray's dashboard, so nodes have a role of their own."""

START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""Set for every stage by harness.cluster.train, if the user has not."""
