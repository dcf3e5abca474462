# SPDX-License-Identifier: Apache-2.0
"""Ground-truth images of subjects, lit and antialiased. Cameras are in metres, subjects in cm."""

from __future__ import annotations

import numpy as np

from ...geometry.structures import Cameras
from ...rendering.mesh import MeshBuffers, rasterize_mesh
from ...rigs.procedural.template import HeadTemplate, vertex_normals
from .lenses import lay_lenses
from .painting import surface_color, surface_gloss
from .ribbons import Ribbons, build_ribbons
from .shading import SOLID_WRAP, Lighting, shade_strands, shade_surface, to_light, to_srgb
from .solids import Solids, build_solids
from .strands import unit
from .subject import METRES_PER_CM, PosedSubject
from .surface import build_surface_attributes, interpolate

# Ribbons overlap, so they need not grow in proportion to the strands that are left out.
THICKENING_POWER = -0.5


def render_frame(
    posed: PosedSubject,
    camera: Cameras,
    *,
    lighting: Lighting | None = None,
    supersampling: int = 2,
) -> np.ndarray:
    """One picture of a posed subject, sRGB with straight alpha. [H, W, 4] float32 in [0, 1].

    Args:
        posed: From `Subject.pose` or `Subject.at_rest`.
        camera: A single one.
        lighting: In world space; the studio light by default.
        supersampling: Samples per pixel along each axis.

    Raises:
        ValueError: There is not exactly one camera.

    Example:
        >>> subject = build_subject(3, resolution="low")
        >>> render_frame(subject.at_rest(), orbit_cameras([0.0], width=64, height=64)).shape
        (64, 64, 4)
    """
    if len(camera) != 1:
        raise ValueError(f"`camera` must hold one camera, got {len(camera)}.")
    lighting = lighting or Lighting()
    viewmat = camera.viewmats[0].double().cpu().numpy()
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3] / METRES_PER_CM
    subject = posed.subject
    ribbons = build_ribbons(
        posed.strands,
        eye,
        seed=subject.identity.seed,
        thickening=subject.density**THICKENING_POWER,
    )
    solids = build_solids([piece for piece in posed.worn if piece.form == "tube"])
    fine = _finer(camera, supersampling)
    buffers = _rasterize(posed, ribbons, solids, fine)
    face_ids = buffers.face_ids.ravel()
    barycentric = buffers.barycentric.reshape(-1, 3).astype(np.float32)
    # Faces are numbered in the order of drawing: skin, strands, what is worn.
    num_faces = len(subject.template.faces)
    num_bound = num_faces + len(ribbons.faces)
    light = np.zeros((len(face_ids), 3), np.float32)
    skin = np.flatnonzero((face_ids >= 0) & (face_ids < num_faces))
    light[skin] = _skin_light(posed, face_ids[skin], barycentric[skin], eye, lighting)
    hair = np.flatnonzero((face_ids >= num_faces) & (face_ids < num_bound))
    corners = ribbons.faces[face_ids[hair] - num_faces]
    light[hair] = _hair_light(ribbons, corners, barycentric[hair], eye, lighting)
    worn = np.flatnonzero(face_ids >= num_bound)
    corners = solids.faces[face_ids[worn] - num_bound]
    light[worn] = _solid_light(solids, corners, barycentric[worn], eye, lighting)
    alpha = (face_ids >= 0).astype(np.float32)
    lenses = [piece for piece in posed.worn if piece.form == "lens"]
    lay_lenses(light, alpha, buffers.depth, lenses, fine, lighting)
    return _resolve(light, alpha, camera, supersampling)


def _finer(camera: Cameras, supersampling: int) -> Cameras:
    """The camera of the samples."""
    scale = camera.Ks.new_tensor([[supersampling], [supersampling], [1]])
    size = (supersampling * camera.width, supersampling * camera.height)
    return Cameras(camera.viewmats, camera.Ks * scale, *size)


def _rasterize(
    posed: PosedSubject, ribbons: Ribbons, solids: Solids, camera: Cameras
) -> MeshBuffers:
    """Skin, strands and what is worn in one set of buffers; their faces follow each other."""
    viewmat, K = camera.viewmats[0].numpy(force=True), camera.Ks[0].numpy(force=True)
    buffers, num_drawn = None, 0
    for vertices, faces in (
        (posed.vertices, posed.subject.template.faces),
        (ribbons.vertices, ribbons.faces),
        (solids.vertices, solids.faces),
    ):
        buffers = rasterize_mesh(
            METRES_PER_CM * vertices,
            faces,
            viewmat,
            K,
            camera.width,
            camera.height,
            buffers=buffers,
            face_offset=num_drawn,
        )
        num_drawn += len(faces)
    return buffers


def _skin_light(
    posed: PosedSubject,
    face_ids: np.ndarray,
    barycentric: np.ndarray,
    eye: np.ndarray,
    lighting: Lighting,
) -> np.ndarray:
    """Linear light from samples on the skin mesh. [n, 3]."""
    template, appearance = posed.subject.template, posed.subject.identity.appearance
    attributes = build_surface_attributes(posed.subject.resolution)
    places, occlusion = attributes.places(face_ids, barycentric)
    geometry = np.concatenate([posed.vertices, _seam_normals(posed.vertices, template)], axis=1)
    values = interpolate(geometry.astype(np.float32), template.faces[face_ids], barycentric)
    normals, views = unit(values[:, 3:]), unit(eye.astype(np.float32) - values[:, :3])
    # The inside of the mouth is seen from behind here and there.
    is_away = np.einsum("nx,nx->n", normals, views) < -0.15
    normals[is_away] *= -1
    return shade_surface(
        to_light(surface_color(places, appearance)),
        normals,
        views,
        occlusion,
        surface_gloss(places, appearance),
        lighting,
    )


def _hair_light(
    ribbons: Ribbons,
    corners: np.ndarray,
    barycentric: np.ndarray,
    eye: np.ndarray,
    lighting: Lighting,
) -> np.ndarray:
    """Linear light from samples on the ribbons. [n, 3]."""
    values = interpolate(ribbons.columns, corners, barycentric)
    points, colors, hull, tangents, gloss = np.split(values, [3, 6, 9, 12], axis=1)
    normals, tangents = unit(hull), unit(tangents)
    # Mostly across the strand, so that hair shines in bands.
    along = np.einsum("nx,nx->n", normals, tangents)[:, None]
    normals = unit(normals - 0.6 * along * tangents)
    views = unit(eye.astype(np.float32) - points)
    return shade_strands(to_light(colors), normals, tangents, views, gloss[:, 0], lighting)


def _solid_light(
    solids: Solids,
    corners: np.ndarray,
    barycentric: np.ndarray,
    eye: np.ndarray,
    lighting: Lighting,
) -> np.ndarray:
    """Linear light from samples on what is worn. [n, 3]."""
    values = interpolate(solids.columns, corners, barycentric)
    points, colors, normals, gloss = np.split(values, [3, 6, 9], axis=1)
    views = unit(eye.astype(np.float32) - points)
    open_air = np.ones(len(points), np.float32)
    return shade_surface(
        to_light(colors),
        unit(normals),
        views,
        open_air,
        (gloss[:, 0], gloss[:, 1]),
        lighting,
        wrap=SOLID_WRAP,
    )


def _seam_normals(vertices: np.ndarray, template: HeadTemplate) -> np.ndarray:
    """Vertex normals; where the skin meets lids or mouth it takes no notice of them. [V, 3]."""
    normals = vertex_normals(vertices, template.faces)
    on_skin = template.vertex_parts == "skin"
    skin_faces = template.faces[template.face_parts == "skin"]
    normals[on_skin] = vertex_normals(vertices, skin_faces)[on_skin]
    return normals


def _resolve(
    light: np.ndarray, alpha: np.ndarray, camera: Cameras, supersampling: int
) -> np.ndarray:
    """Pixels from their samples: colour is the mean of what covers. [H, W, 4]."""
    grid = (camera.height, supersampling, camera.width, supersampling)
    coverage = alpha.reshape(grid).mean(axis=(1, 3), dtype=np.float32)[..., None]
    # One axis after the other is twice as fast as both at once.
    mean = light.reshape(*grid, 3).mean(axis=1).mean(axis=2) / np.maximum(coverage, 1e-6)
    return np.concatenate([to_srgb(mean), coverage], axis=-1)
