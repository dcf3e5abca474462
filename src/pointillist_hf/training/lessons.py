# SPDX-License-Identifier: Apache-2.0
"""What the decoder that looks at the photograph learns from: portraits with completed clouds.

A lesson is a portrait whose cloud is completed as the pipeline completes it, and where that cloud
lies in other pictures of the person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.tokens.stored_pictures import StoredPictures
from ..geometry.cameras import project_points
from ..geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams, TensorRecord
from ..portraits.portrait import CHIN, FOREHEAD
from ..portraits.portrait_tracker import PortraitTracker
from ..refinement.completion import complete_points
from ..refinement.dressing import project_cloud
from ..refinement.placement import Placement, place_points
from ..refinement.point_sights import describe_points
from ..refinement.portrait_view import OUTER_CANTHI, PortraitView
from ..refinement.projection import ProjectedPoints
from ..refinement.soft_rims import carry_outwards
from ..refinement.surface_cloud import SurfaceCloud
from ..refinement.tracked_portrait import TrackedPortrait, fit_portrait
from ..rigs.head_rig import HeadRig
from ..rigs.landmark_places import NUM_LANDMARKS, LandmarkPlaces
from ..rigs.landmark_sources import IBUG, find_landmark_places
from .dataset import People, Person
from .portraits import uniform
from .train_decoder import composite

GREY = 0.5  # behind portraits: what the matte leaves out is not looked at
BACKDROPS = (0.3, 0.9)  # of the portraits that are tracked
# Of the eyes' middle over the chin, where the forehead meets the hair.
FOREHEAD_HEIGHT = 0.75
DENSITIES = (0.3, 1.0)  # of completed clouds, so that sparse ones are known as well
NASION = 168


@dataclass(frozen=True)
class SizedPlacement(TensorRecord):
    """The way into a view, then to the size and the place of the true face.

    One photograph cannot tell a small head from a far one, and the decoder is not to blame for it.
    """

    placement: Placement
    middle: Tensor  # [3] of the tracked face in the view, metres
    scale: Tensor  # [] the true size over the tracked one
    target: Tensor  # [3] of the true face

    def pose_gaussians(self, gaussians: Gaussians) -> Gaussians:
        """The gaussians in the view; differentiable."""
        posed = self.placement.pose_gaussians(gaussians)
        means = (posed.means - self.middle) * self.scale + self.target
        return replace(posed, means=means, scales=posed.scales * self.scale)


@dataclass(frozen=True)
class Lesson:
    """A portrait, the completed cloud of its person, and where that lies in other pictures."""

    cloud: SurfaceCloud
    projected: ProjectedPoints
    foreground: Tensor  # [H, W, 3] of the portrait
    features: Tensor  # [N, K]
    placements: list[SizedPlacement]  # one for each of V views
    images: Tensor | StoredPictures  # [V, H, W, 4] uint8
    cameras: Cameras  # V

    def of_views(self, views: Tensor) -> Lesson:
        """The lesson with some of its views [K]."""
        placements = [self.placements[view] for view in views.tolist()]
        chosen = {"images": self.images[views], "cameras": self.cameras[views]}
        return replace(self, placements=placements, **chosen)


@dataclass(frozen=True)
class Look:
    """A portrait as it is seen."""

    view: PortraitView
    places: LandmarkPlaces | None = None  # of its landmarks on the rig, if all 468 are known
    image: Tensor | None = None  # [3, H, W] that was tracked
    tracked: TrackedPortrait | None = None


class Lessons:
    """Prepares lessons, and remembers them between epochs.

    Args:
        people: The data set; all pictures of a person in one light.
    """

    def __init__(self, people: People) -> None:
        self.people = people
        self.known: dict[tuple[int, int], Lesson] = {}

    def __call__(self, index: int, portrait: int) -> Lesson:
        """The lesson of a person and one of the portraits."""
        if (index, portrait) not in self.known:
            self.known[index, portrait] = self._prepare(index, portrait)
        return self.known[index, portrait]

    @torch.no_grad()
    def _prepare(self, index: int, portrait: int) -> Lesson:
        person, rig = self.people.persons[index], self.people.rig
        stream = torch.Generator().manual_seed(1_000 * index + portrait)
        look = self._look(person, portrait, stream)
        view = look.view
        points = self._choose_points(index, portrait, look, stream)
        density = float(uniform(*DENSITIES, 1, stream))
        cloud = complete_points(points, view, rig, places=look.places, density=density)
        projected = project_cloud(cloud, view, rig)
        return Lesson(
            cloud=cloud,
            projected=projected,
            foreground=view.foreground,
            features=describe_points(cloud, projected, view, rig),
            placements=[
                _place(cloud, rig, view.rig_params.betas, person.view_params[i : i + 1])
                for i in range(len(person.views))
            ],
            images=person.views,
            cameras=person.view_cameras,
        )

    def _look(self, person: Person, portrait: int, stream: torch.Generator) -> Look:
        return Look(view_portrait(person, portrait, self.people.rig))

    def _choose_points(
        self, index: int, portrait: int, look: Look, stream: torch.Generator
    ) -> CanonicalPoints | None:
        """What the lesson begins with: half of them with the person's points, half with none."""
        return self._own_points(index) if portrait % 2 else None

    def _own_points(self, index: int) -> CanonicalPoints:
        return self.people.tokenizer.decode_points(self.people.persons[index].input_ids)


class TrackedLessons(Lessons):
    """Lessons of portraits as the tracker finds them, with its errors.

    What a fit of the landmarks gets wrong, a decoder that never saw it paints with sharp edges at
    the wrong place. Portraits in which no face is found keep their true tracks.

    Args:
        people: The data set; all pictures of a person in one light.
        tracker: As in the pipeline.
    """

    def __init__(self, people: People, tracker: PortraitTracker) -> None:
        super().__init__(people)
        self.tracker = tracker

    def _look(self, person: Person, portrait: int, stream: torch.Generator) -> Look:
        rig = self.people.rig
        pixels = person.portraits[portrait].float() / 255
        image = composite(pixels, uniform(*BACKDROPS, 3, stream)).permute(2, 0, 1)
        try:
            found = self.tracker(image)[0]
        except ValueError:
            return super()._look(person, portrait, stream)
        tracked = fit_portrait(found, rig)
        view = tracked.view(image.shape[-1])
        return Look(view, find_landmark_places(rig), image, tracked)


def _place(cloud: SurfaceCloud, rig: HeadRig, betas: Tensor, true: RigParams) -> SizedPlacement:
    """The cloud of an identity as tracked, in a view whose parameters are known."""
    own = replace(true, betas=betas)
    face = rig.mask("face") if hasattr(rig, "mask") else slice(None)
    ours, theirs = (rig(params)[0, face] for params in (own, true))
    middle, target = ours.mean(0), theirs.mean(0)
    scale = (theirs - target).norm() / (ours - middle).norm()
    return SizedPlacement(place_points(cloud.points, rig, own), middle, scale, target)


def view_portrait(person: Person, portrait: int, rig: HeadRig) -> PortraitView:
    """A portrait of a data set as the tracker would see it if it made no mistakes."""
    pixels = person.portraits[portrait].float() / 255
    params = person.portrait_params[portrait : portrait + 1]
    cameras = person.portrait_cameras[portrait : portrait + 1]
    matte = pixels[..., 3]
    image = composite(pixels, torch.full((3,), GREY))
    return PortraitView(
        image=image,
        foreground=carry_outwards(pixels[..., :3], matte),
        matte=matte,
        inside=torch.ones_like(matte, dtype=torch.bool),
        landmarks=_landmarks(rig, params, cameras),
        irises=torch.zeros(2, 5, 2),
        cameras=cameras,
        rig_params=params,
    )


def _landmarks(rig: HeadRig, rig_params: RigParams, cameras: Cameras) -> Tensor:
    """The rig's own landmarks in place of the 468; those it does not have lie between the eyes."""
    marks, _ = project_points(rig.landmarks(rig(rig_params))[0], cameras)
    landmarks = marks[0, IBUG.index(NASION)].repeat(NUM_LANDMARKS, 1)
    landmarks[list(IBUG)] = marks[0]
    middle = landmarks[list(OUTER_CANTHI)].mean(0)
    landmarks[FOREHEAD] = middle + FOREHEAD_HEIGHT * (middle - landmarks[CHIN])
    return landmarks
