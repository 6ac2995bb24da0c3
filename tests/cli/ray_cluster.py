"""A cluster of Ray on this machine with the deployment of examples/deployment, for a test.

python -m tests.cli.ray_cluster DIRECTORY PORT TEMPORARY

Each line of stdout is the number of replicas that run, when it changes. It ends with its stdin.
"""

import os
import select
import sys
import time

import ray
from ray import serve

from examples.deployment import ray_serve

SECONDS = 300.0
"""After which it ends in any case."""

LOOK_SECONDS = 0.1


def main(directory: str, port: str, temporary: str) -> None:
    """Serve until stdin ends."""
    ray.init(
        num_cpus=4,  # for whoever has less: what is counted are replicas
        include_dashboard=False,
        object_store_memory=100 << 20,
        _temp_dir=temporary,
        log_to_driver=False,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
        serve.run(ray_serve.build({"directory": directory, "upscale_delay": "0.5"}))
        _tell_replicas()
    finally:
        serve.shutdown()
        ray.shutdown()


def _tell_replicas() -> None:
    end, last = time.monotonic() + SECONDS, -1
    while time.monotonic() < end:
        application = serve.status().applications["default"]
        states = application.deployments["asgihive"].replica_states
        running = {str(state): count for state, count in states.items()}.get("RUNNING", 0)
        if running != last:
            print(running, flush=True)
            last = running
        if select.select([sys.stdin], [], [], LOOK_SECONDS)[0] and not os.read(0, 1):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
