"""`python -m flux_devkit.manifests generate | render | check`: what `make render` and the tests call.

`generate` writes what follows from the code, `render` writes every overlay and component to a folder, `check` says what is
wrong with the base and each overlay, or with `--overlay` of an installation's own (which is judged like production), and ends
with 1 if anything is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flux_devkit.home import corpora, find_checkout
from flux_devkit.manifests import generated, rendering, wiring
from flux_devkit.manifests.checks import checks_for
from flux_devkit.manifests.documents import parse


def main() -> int:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m flux_devkit.manifests", description=__doc__)
    parser.add_argument("act", choices=["generate", "render", "check"])
    parser.add_argument("--out", type=Path, help="where to render to (default: .flux/rendered)")
    parser.add_argument("--overlay", type=Path, help="a kustomization to check instead of those of the repository")
    arguments = parser.parse_args()
    repository = find_checkout()
    if arguments.act == "check":
        own = {"production": arguments.overlay} if arguments.overlay else None
        return check(repository, own or rendering.targets(repository / "deploy/k8s"))
    if arguments.act == "render":
        out = arguments.out or repository / ".flux/rendered"
        written = rendering.render_all(repository / "deploy/k8s", out)
        sys.stdout.write(f"{len(written)} renderings in {out}\n")
    else:
        changed = [path.relative_to(repository).as_posix() for path in generated.generate(repository)]
        sys.stdout.write("".join(f"wrote {name}\n" for name in changed) or "everything is current\n")
    return 0


def check(repository: Path, targets: dict[str, Path]) -> int:
    """Say every finding and how many there are, and which secrets are left for a person to make."""
    crds = corpora() / "crd-schemas"
    schemas = crds if crds.is_dir() else None
    if schemas is None:
        sys.stdout.write(f"operators' schemas are not checked: there is no {crds}\n")
    findings = 0
    for target, folder in targets.items():
        documents = parse(rendering.kustomize(folder))
        for name, judge in checks_for(target, repository, schemas).items():
            for finding in judge(documents):
                findings += 1
                sys.stdout.write(f"{target}: {name}: {finding}\n")
        by_hand = ", ".join(sorted(wiring.secrets_by_hand(documents)))
        sys.stdout.write(f"{target}: secrets that nothing makes: {by_hand or 'none'}\n")
    sys.stdout.write(f"{findings} findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
