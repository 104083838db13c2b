"""What an operator may set, in sections that each service composes into its own settings.

A setting has one environment variable, one type, one default and one line that explains it; `explain` prints them, so
the documentation cannot differ from the code. Secrets are never values of variables: a variable names the file that
holds one. What is wrong is said all at once, one line per fault, before anything is started.
"""

from flux_common.settings.loading import Setting, describe, explain, load, warnings_of
from flux_common.settings.section import Section, SectionSet, read_secret
from flux_common.settings.sections import (
    AgencySettings,
    InstallationSettings,
    KafkaSettings,
    LogSettings,
    OpsSettings,
    PostgresSettings,
    ServiceSettings,
    TelemetrySettings,
)

__all__ = [
    "AgencySettings",
    "InstallationSettings",
    "KafkaSettings",
    "LogSettings",
    "OpsSettings",
    "PostgresSettings",
    "Section",
    "SectionSet",
    "ServiceSettings",
    "Setting",
    "TelemetrySettings",
    "describe",
    "explain",
    "load",
    "read_secret",
    "warnings_of",
]
