"""asgihive as a deployment of Ray Serve, of 1 to 3 replicas as many ask.

serve run examples.deployment.ray_serve:build directory=/data

Every node needs the directory and `asgihive`. Settings come from the variables of the environment
(`ASGIHIVE_…`) of the replicas.
"""

from collections.abc import Mapping

from ray import serve
from ray.serve import Application

from asgihive import H5App, H5Settings

# Seconds; Ray waits for 30 until it adds a replica, and for 600 until it takes one away.
UPSCALE_DELAY, DOWNSCALE_DELAY = 3.0, 300.0


def build(arguments: Mapping[str, str]) -> Application:
    """Return what `serve run` deploys.

    Args:
        arguments: `directory`, which is served, and `upscale_delay` in seconds.
    """
    directory = arguments["directory"]

    def make_service() -> H5App:
        # In the replica: lanes, open files and caches are of its process.
        return H5App(directory, H5Settings.from_environment())

    deployment = serve.deployment(
        serve.ingress(make_service)(),
        name="asgihive",
        # The service bounds by itself what waits for its lanes.
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 1},
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 3,
            "target_ongoing_requests": 4,
            "upscale_delay_s": float(arguments.get("upscale_delay", UPSCALE_DELAY)),
            "downscale_delay_s": DOWNSCALE_DELAY,
        },
        health_check_period_s=10,
        graceful_shutdown_timeout_s=25,
    )
    return deployment.bind()
