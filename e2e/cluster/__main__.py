"""The command line of the cluster.

python -m e2e.cluster build                # compile programs and make images: what `up` would do first
python -m e2e.cluster up [--dir DIR]       # prints the path of a kubeconfig
python -m e2e.cluster down [--dir DIR]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from e2e.cluster import build, host, images
from e2e.cluster.cluster import FOLDER, Cluster


def main() -> None:
    """Do what the arguments say; a host that lacks something ends it with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description="A Kubernetes cluster without Docker")
    parser.add_argument("action", choices=["build", "up", "down"])
    parser.add_argument("--dir", type=Path, default=FOLDER, help="where its files are (%(default)s)")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.dir)
    try:
        if arguments.action == "build":
            host.check()
            build.build_all()
            images.infrastructure()
            images.base()
        elif arguments.action == "up":
            cluster.start()
            print(cluster.kubeconfig)
        else:
            cluster.stop()
    except (host.HostError, TimeoutError) as error:
        sys.exit(f"cluster: {error}")


if __name__ == "__main__":
    main()
