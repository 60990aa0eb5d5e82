"""Fewer triangles in a compiled MuJoCo model's visual meshes, in memory, without touching physics.

A software rasteriser's cost is its vertices. Each mesh that only geoms without collision use has
its vertices clustered in a grid of its own extent, its triangles drawn between the clusters'.
Normals and texture coordinates stay those of the corners. Before a rendering context is made.
"""

from typing import Any

import numpy as np

_FINEST, _COARSEST = 0.004, 0.020
"""Cells in metres: fingers must keep their shape, walls need no more."""


def decimate_visuals(model: Any, parts: int) -> tuple[int, int]:
    """Clusters every purely visual mesh into cells of its longest side / `parts`. Returns the
    number of triangles before and after."""
    before = after = 0
    for mesh in _visual_meshes(model):
        first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        kept = _kept_triangles(model, mesh, first, count, parts)
        before, after = before + count, after + len(kept)
        faces = _clustered(model, mesh, first, count, parts)[kept]
        model.mesh_face[first : first + len(kept)] = faces
        for table in (model.mesh_facenormal, model.mesh_facetexcoord):
            rows = table[first : first + count][kept].copy()
            table[first : first + len(kept)] = rows
        model.mesh_facenum[mesh] = len(kept)
    return before, after


def _visual_meshes(model: Any) -> list[int]:
    """Meshes that are drawn by geoms which touch nothing."""
    drawn: dict[int, bool] = {}
    meshes = zip(model.geom_type, model.geom_dataid, model.geom_contype, strict=True)
    for (kind, mesh, contype), conaffinity in zip(meshes, model.geom_conaffinity, strict=True):
        if kind == 7 and mesh >= 0:  # mjGEOM_MESH
            drawn[int(mesh)] = drawn.get(int(mesh), True) and not (contype or conaffinity)
    return sorted(mesh for mesh, alone in drawn.items() if alone)


def _clustered(model: Any, mesh: int, first: int, count: int, parts: int) -> np.ndarray:
    """int [F, 3]: the mesh's triangles between the vertices that stand for their clusters."""
    start, size = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    representative = representatives(model.mesh_vert[start : start + size], parts)
    return representative[model.mesh_face[first : first + count]]


def _kept_triangles(model: Any, mesh: int, first: int, count: int, parts: int) -> np.ndarray:
    """int [K]: triangles that still have three corners, each set of corners once."""
    faces = np.sort(_clustered(model, mesh, first, count, parts), axis=1)
    whole = np.flatnonzero((faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]))
    _, once = np.unique(faces[whole], axis=0, return_index=True)
    return whole[np.sort(once)]


def representatives(vertices: np.ndarray, parts: int) -> np.ndarray:
    """[V, 3] m → int [V]: for each vertex the one that stands for its cell, the nearest to the
    mean of the cell's vertices."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    cell = np.clip((high - low).max() / parts, _FINEST, _COARSEST)
    cells = np.rint((vertices - low) / cell).astype(np.int64)
    _, cluster = np.unique(cells, axis=0, return_inverse=True)
    cluster = cluster.reshape(-1)
    sums = np.zeros((cluster.max() + 1, 3))
    np.add.at(sums, cluster, vertices)
    means = sums / np.bincount(cluster)[:, None]
    distance = np.linalg.norm(vertices - means[cluster], axis=1)
    order = np.lexsort((distance, cluster))
    firsts = order[np.searchsorted(cluster[order], np.arange(len(means)))]
    return firsts[cluster]
