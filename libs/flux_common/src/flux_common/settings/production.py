"""What is refused where FLUX_ENVIRONMENT is production, and what is warned of.

What is fit for development alone must not reach production by being forgotten. Each section knows its own (`unfit`,
`doubtful`); here is what belongs to no section: secrets. They are files, named by variables, that nobody but the process and
its group can read. A variable is seen by whoever may look at the process, and by every child of it. No message repeats a value.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from flux_common.settings.section import Section
from flux_common.settings.sections import InstallationSettings

_SECRET_NAMES: Final = re.compile(r"FLUX_\w*(PASSWORD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|_KEY)|PGPASSWORD")
_PUBLIC: Final = {"FLUX_AUDIT_VERIFIER_KEY"}
_SECRET_VALUES: Final = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a token": re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"),
    "a password in a URL": re.compile(r"://[^/@\s]*:[^/@\s]+@"),
}
# What a store's client would take from variables, by any of the names that it knows a secret by.
_STORE_SECRETS: Final = re.compile(r"(AWS|AZURE|GOOGLE)(_\w+)?_(KEY|KEY_BASE64|SECRET|TOKEN)")


def refused(sections: Collection[Section], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what keeps these settings from production, one line each; nothing in development."""
    if is_production(sections):
        for section in sections:
            yield from section.unfit()
            yield from (_open(env, path) for env, path in section.secret_files() if _others_may(path))
        yield from _secret_variables(environ)


def doubtful(sections: Collection[Section]) -> Iterator[str]:
    """Yield what is legal in production, and rarely meant; nothing in development."""
    if is_production(sections):
        for section in sections:
            yield from section.doubtful()


def is_production(sections: Collection[Section]) -> bool:
    """Tell whether the settings are for production."""
    return any(
        isinstance(section, InstallationSettings) and section.environment == "production" for section in sections
    )


def is_store_secret(name: str) -> bool:
    """Tell whether a store's client takes a secret by this name."""
    return _STORE_SECRETS.fullmatch(name) is not None


def _secret_variables(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in sorted(environ.items()):
        if _SECRET_NAMES.fullmatch(name) and value and name not in _PUBLIC:
            yield f"{name} holds a secret; write it into a file and name that by the variable that ends in _FILE"
        elif is_store_secret(name) and value:
            yield f"{name} holds a secret; use a workload identity, or write it into {name} of FLUX_STORE_SECRETS_DIR"
        elif name.startswith("FLUX_"):
            for what, shape in _SECRET_VALUES.items():
                if shape.search(value):
                    yield f"{name} holds {what}; write it into a file and name that by the variable that ends in _FILE"


def _others_may(path: Path) -> bool:
    """Tell whether anybody may use the file but its owner, and readers of its group."""
    return bool(path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP))


def _open(env: str, path: Path) -> str:
    return f"{env} leads to {path}, which others may read or its group may write; chmod 0440 (Kubernetes: defaultMode)"
