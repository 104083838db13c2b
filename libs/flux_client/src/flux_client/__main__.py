"""`python -m flux_client`: the command `flux-etl` where its script is not on the path."""

from flux_client.cli import main

main()
