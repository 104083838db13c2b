"""Make what compose.yaml mounts: passwords, the key of the audit log, and a registry of example agencies with their keys.

Everything lies in `.flux/compose`, a folder that nobody else may enter. What is there stays, so this can be called again;
to begin anew, take the volumes away (`docker compose down --volumes`) and delete the folder.

Compose mounts a secret's file as it is, and a service runs as a user who does not own it. So the files themselves are
readable by all, and the folder around them protects them on the host.
"""

from __future__ import annotations

import argparse
import secrets
import shlex
import shutil
import sys
from pathlib import Path

from flux_client.development import EXAMPLE_AGENCIES, write_development_registry
from flux_client.keys import ensure_key, jwks_path, private_key_path
from flux_common.postgres.migrations import LOGIN_ROLES

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".flux" / "compose"
PASSWORDS = ("postgres_admin", "grafana_admin", *LOGIN_ROLES)
TREE_HEADS = "audit_tree_heads"


def main() -> None:
    """Prepare, and say what comes next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=HOME, help="where to write (default: .flux/compose)")
    home = parser.parse_args().home
    prepare(home)
    sys.stdout.write(f"{home} is ready. Next: docker compose up --build --wait\n")


def prepare(home: Path) -> None:
    """Make everything under `home` that is not there yet."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    _folder(home / "archives", 0o755)
    _folder(home / "datasets", 0o777)  # written by the services' user
    _write_secrets(_folder(home / "secrets", 0o755), home / "keys")
    _write_registry(_folder(home / "registry", 0o755), home / "keys")
    (home / "dev.env").write_text(_client_environment(home))


def _folder(path: Path, mode: int) -> Path:
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    return path


def _write_secrets(folder: Path, keys: Path) -> None:
    for name in PASSWORDS:
        if not (folder / name).exists():
            (folder / name).write_text(secrets.token_urlsafe(24))
    ensure_key(keys, TREE_HEADS, "EdDSA")
    shutil.copyfile(private_key_path(keys, TREE_HEADS), folder / TREE_HEADS)
    for path in folder.iterdir():
        path.chmod(0o644)


def _write_registry(folder: Path, keys: Path) -> None:
    """Write the registry and the public keys that it names; the private ones stay in `keys`, which is never mounted."""
    registry = write_development_registry(
        keys, EXAMPLE_AGENCIES, source_prefixes=["file:///archives/"], destination_prefixes=["file:///datasets/"]
    )
    for path in (registry, *(jwks_path(keys, agency.agency_id) for agency in EXAMPLE_AGENCIES)):
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).chmod(0o644)


def _client_environment(home: Path) -> str:
    """Return what `flux-etl` reads where FLUX_DEV_ENV names it; the ports are those of compose.yaml."""
    variables = {
        "FLUX_KAFKA_BOOTSTRAP": "127.0.0.1:9094",
        "FLUX_READER_DSN": "postgresql://flux_reader@127.0.0.1:5432/flux",
        "FLUX_READER_PASSWORD_FILE": str(home.resolve() / "secrets" / "flux_reader"),
        "FLUX_KEYS_DIR": str(home.resolve() / "keys"),
        "FLUX_AGENCIES_FILE": str(home.resolve() / "keys" / "agencies.yaml"),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


if __name__ == "__main__":
    main()
