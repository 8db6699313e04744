"""What EXPLAIN (ANALYZE, FORMAT JSON) says of a statement that has run."""

from typing import Any

import orjson


def nodes_of(text: str) -> list[dict[str, Any]]:
    """Return all nodes of the plan."""
    nodes, waiting = [], [orjson.loads(text)[0]["Plan"]]
    while waiting:
        nodes.append(waiting.pop())
        waiting += nodes[-1].get("Plans", [])
    return nodes


def rows_of(nodes: list[dict[str, Any]]) -> float:
    """Return how many rows the node read that read most, in all its loops."""
    read: list[float] = [
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
    ]
    return max(read)
