"""Free ports on the loopback interface."""

import contextlib
import socket


def free_port() -> int:
    """A port that nothing listens on right now. Whoever binds it next may still lose the race: check, then retry."""
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """So many different ports: each is held until all are found."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether `port` could be bound now (with SO_REUSEADDR, as servers bind)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def answers(port: int, host: str = "127.0.0.1", timeout: float = 0.5) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False
