"""The image of a node: built from this checkout, or pulled from a registry."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound

from deploy.engine import DeployError, UsageError, brief, explained
from deploy.lock import CommandLock

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
# Settings of pip on this machine. Only the build stage gets them, so the image does not contain them.
PIP_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
KEPT_LINES = 8
IMAGE_LABEL = "raftkv.image"
"""The label of all images that the Dockerfile builds."""

STAGE, STAGE_IMAGE = "build", "raftkv-build"
"""The build stage, and the name of its image: without a name, `docker image prune` would remove it."""

Say = Callable[[str], None]


def check_name(image: str) -> None:
    """Raise ``UsageError`` if this is not a valid image name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.:/@-]*", image, re.ASCII):
        raise UsageError(f"{image!r} is not a valid image name; give one such as raftkv:next")


def ensure_image(client: Any, image: str, default: str, say: Say) -> str:
    """Return the id of an image. If it is missing, it is built if it is the default image, and else pulled."""
    with explained():
        found = image_id(client, image)
        if found is None and image == default:
            build(client, image, say)
        elif found is None:
            pull(client, image, f"build it with `python -m deploy build --image {image}`", say)
        return found or client.images.get(image).id


def image_id(client: Any, image: str) -> str | None:
    """Return the id of an image, or None if the engine does not have it."""
    try:
        found: str = client.images.get(image).id
    except ImageNotFound:
        return None
    return found


def pull(client: Any, image: str, otherwise: str, say: Say) -> None:
    """Pull an image from its registry; raises ``DeployError``, whose message ends with the remedy ``otherwise``."""
    say(f"pulling {image}")
    try:
        client.images.pull(*split_tag(image))
    except APIError as error:
        why = brief(str(error.explanation or error))
        raise DeployError(f"the image {image} is not here and cannot be pulled ({why}); {otherwise}") from None


def split_tag(image: str) -> tuple[str, str]:
    """Return name and tag of an image; docker-py would pull all tags if it got none."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


def base_image(dockerfile: str) -> str:
    """Return the default base image of a Dockerfile."""
    found = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.M)
    assert found is not None, "the Dockerfile has no default base"
    return found[1]


def build(client: Any, image: str, say: Say, environ: Mapping[str, str] = os.environ) -> None:
    """Build the image from this checkout, and remove images of earlier builds that have lost their name.

    Raises ``DeployError``.
    """
    check_name(image)
    base = base_image(DOCKERFILE.read_text())
    # The image of a build that runs at the same time has no name yet and would be removed.
    with CommandLock("the images", say), explained():
        if image_id(client, base) is None:
            pull(
                client,
                base,
                "load it into this engine (docker load), or give another image that name (docker tag)",
                say,
            )
        say(f"building {image}")
        build_stage(client, STAGE, STAGE_IMAGE, environ)
        build_stage(client, None, image, environ)
        remove_nameless(client)


def build_stage(client: Any, stage: str | None, image: str, environ: Mapping[str, str]) -> None:
    """Build the image of a stage of the Dockerfile; of the last stage if ``stage`` is None."""
    follow_build(
        client.api.build(
            path=str(ROOT),
            dockerfile=str(DOCKERFILE.relative_to(ROOT)),
            tag=image,
            target=stage,
            rm=True,
            forcerm=True,
            decode=True,
            buildargs={name: environ[name] for name in PIP_VARIABLES if environ.get(name)},
        )
    )


def remove_nameless(client: Any) -> None:
    """Remove images of ours whose name a newer image has; the engine keeps those that containers use."""
    # The build has succeeded even if this fails.
    with contextlib.suppress(APIError):
        client.api.prune_images({"dangling": True, "label": [IMAGE_LABEL]})


def follow_build(output: Iterable[Mapping[str, str]]) -> None:
    """Wait until a build ends; raises ``DeployError`` with the last lines of its output if it fails."""
    lines: list[str] = []
    for part in output:
        lines += [line for line in part.get("stream", "").splitlines() if line.strip()]
        if "error" in part:
            raise DeployError("\n  ".join([f"the image cannot be built: {brief(part['error'])}", *lines[-KEPT_LINES:]]))
