"""What the server counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
OBJECTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper ends of the bins."""


class Histogram:
    """Values in bins: a count for each upper end, and the sum."""

    def __init__(self, ends: tuple[float, ...]) -> None:
        self._ends = ends
        self._counts = [0] * (len(ends) + 1)
        self._sum = 0.0

    def take(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._ends, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str = "") -> Iterator[str]:
        """As Prometheus reads it; a bin counts what is in the bins before it too."""
        comma = "," if labels else ""
        below = 0
        for end, count in zip((*self._ends, "+Inf"), self._counts, strict=True):
            below += count
            yield f'{name}_bucket{{{labels}{comma}le="{end}"}} {below}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self._sum}"
        yield f"{name}_count{braces} {below}"


class Metrics:
    """Requests, how long they took, and how many objects were read together."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[tuple[str, str], Histogram] = {}
        self._joint = Histogram(OBJECTS)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: as GET.
            route: as declared, with its parameters' names in place of what was given.
            status: of the answer.
            seconds: until the answer was sent.
        """
        self._requests[method, route, status] += 1
        self._seconds.setdefault((method, route), Histogram(SECONDS)).take(seconds)

    def joint_read(self, objects: int) -> None:
        """Count a read of so many objects together."""
        self._joint.take(objects)

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of it, with some values that go up and down, by name."""
        return "\n".join([*self._lines(gauges), ""])

    def _lines(self, gauges: Mapping[str, float]) -> Iterator[str]:
        for name, value in gauges.items():
            yield f"# TYPE memlab_{name} gauge"
            yield f"memlab_{name} {value}"
        yield "# TYPE memlab_requests_total counter"
        for (method, route, status), count in sorted(self._requests.items()):
            yield f'memlab_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
        yield "# TYPE memlab_request_seconds histogram"
        for (method, route), histogram in sorted(self._seconds.items()):
            yield from histogram.lines("memlab_request_seconds", f'method="{method}",route="{route}"')
        yield "# TYPE memlab_joint_read_objects histogram"
        yield from self._joint.lines("memlab_joint_read_objects")
