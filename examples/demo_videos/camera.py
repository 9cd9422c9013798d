"""A still camera that frames the whole action: metres -> pixels and back to rays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .skeleton import INDEX, LIMBS, Array, Body


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at `distance` metres from the point 0.9 m above the origin, in azimuth and elevation (degrees).

    An image plane one metre in front of it is scaled by `focal` (pixels) and its axis meets the picture at `centre` (x, y pixels).
    """

    azimuth: float
    elevation: float
    distance: float
    focal: float = 1.0
    centre: tuple[float, float] = (0.0, 0.0)

    def axes(self) -> tuple[Array, Array, Array, Array]:
        """Right, up and forward of the camera and its place in the room: (3,) each."""
        azimuth, elevation = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        away = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        return right, np.cross(away, right), -away, np.array([0, 0, 0.9]) + self.distance * away

    def project(self, points: Array) -> tuple[Array, Array]:
        """(..., 3) metres -> (..., 2) pixels (x right, y down) and (...) depth in metres."""
        right, up, forward, place = self.axes()
        relative = points - place
        depth = relative @ forward
        plane = np.stack([relative @ right, -(relative @ up)], axis=-1) / depth[..., None]
        return plane * self.focal + np.array(self.centre), depth

    def rays(self, width: int, height: int) -> Array:
        """Direction of the ray through the middle of every pixel: (height, width, 3), not normalised."""
        right, up, forward, _ = self.axes()
        x = (np.arange(width) + 0.5 - self.centre[0]) / self.focal
        y = (np.arange(height) + 0.5 - self.centre[1]) / self.focal
        return forward + x[None, :, None] * right - y[:, None, None] * up


def limbs_in_picture(camera: Camera, joints: Array, body: Body) -> tuple[Array, Array, Array]:
    """Capsules as the camera sees them.

    joints: (F, J, 3) metres. Returns ends (F, L, 2, 2) in pixels (start and end, x and y), radii (F, L, 2) in pixels, and how far away the
    capsules' middles are: depth (F, L) in metres.
    """
    ends = np.array([[INDEX[limb.start], INDEX[limb.end]] for limb in LIMBS])
    radii = np.array([[limb.radius_start, limb.radius_end] for limb in LIMBS]) * body.girth
    pixels, depth = camera.project(joints)
    return pixels[:, ends], radii * camera.focal / depth[:, ends], depth[:, ends].mean(-1)


def framed(camera: Camera, joints: Array, body: Body, *, width: int, height: int, fill: float, shift: tuple[float, float]) -> Camera:
    """The camera zoomed and turned so that the action fills the picture.

    The figure's height (in its tallest frames) becomes `fill` of the picture's, unless the whole action would then leave the picture or be
    wider than 1.15 picture heights, which is about what a square crop shows of it. `shift` moves it by shares of the picture's height.
    """
    ends, radii, _ = limbs_in_picture(camera, joints, body)
    low, high = (ends - radii[..., None]).min((1, 2)), (ends + radii[..., None]).max((1, 2))  # (F, 2)
    tall = np.quantile(high[:, 1] - low[:, 1], 0.9)
    left, top = np.quantile(low, 0.02, axis=0)
    right, bottom = np.quantile(high, 0.98, axis=0)
    # A figure on the floor is not enlarged without limit: one that stands would be 1.5 pictures tall at most.
    standing = 1.75 / camera.distance
    focal = min(fill * height / tall, 0.97 * height / (bottom - top), 1.15 * height / (right - left), 1.5 * height / standing)
    centre = (width / 2 + shift[0] * height - focal * (left + right) / 2, height / 2 + shift[1] * height - focal * (top + bottom) / 2)
    return Camera(camera.azimuth, camera.elevation, camera.distance, focal, centre)
