"""The whole loop once around, on this machine, with simulated users: `run(DemoOptions()) -> exit code`."""

from infra.demo.options import DemoOptions

__all__ = ["DemoOptions", "run"]


def run(options: DemoOptions) -> int:
    """Run the demo and return the process's exit code; errors are raised as `ThumbwheelError`."""
    from infra.demo.director import main  # heavy: polars, httpx, confluent-kafka

    return main(options)
