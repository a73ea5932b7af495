"""The image of a node: built from this checkout, or pulled."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound

from deploy.alone import Alone
from deploy.engine import DeployError, UsageError, brief, explained

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
# What pip is told on this machine, if it is told anything; the stage that builds is the only one that gets it.
PIP_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
KEPT_LINES = 8
IMAGE_LABEL = "raftkv.image"
"""What all images have that are made by the Dockerfile."""

STAGE, STAGE_IMAGE = "build", "raftkv-build"
"""The stage that builds, and what its image is called: without a name it would seem to be left over."""

Say = Callable[[str], None]


def check_name(image: str) -> None:
    """Raise ``UsageError`` if no image can be called so."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.:/@-]*", image, re.ASCII):
        raise UsageError(f"{image!r} is no name for an image; give one such as raftkv:next")


def ensure_image(client: Any, image: str, default: str, say: Say) -> str:
    """Return the id of an image, which is built if it is missing and the default one, or else pulled."""
    with explained():
        found = image_id(client, image)
        if found is None and image == default:
            build(client, image, say)
        elif found is None:
            pull(client, image, f"build it with `python -m deploy build --image {image}`", say)
        return found or client.images.get(image).id


def image_id(client: Any, image: str) -> str | None:
    """Return the id of an image that the engine has."""
    try:
        found: str = client.images.get(image).id
    except ImageNotFound:
        return None
    return found


def pull(client: Any, image: str, otherwise: str, say: Say) -> None:
    """Get an image from its registry; raises ``DeployError``, with what to do ``otherwise``."""
    say(f"pulling {image}")
    try:
        client.images.pull(*split_tag(image))
    except APIError as error:
        why = brief(str(error.explanation or error))
        raise DeployError(f"the image {image} is not here, and cannot be pulled ({why}); {otherwise}") from None


def split_tag(image: str) -> tuple[str, str]:
    """Return name and tag of an image; without a tag, all of them would be pulled."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


def base_image(dockerfile: str) -> str:
    """Return the image on which a Dockerfile builds by default."""
    found = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.M)
    assert found is not None, "the Dockerfile names its base"
    return found[1]


def build(client: Any, image: str, say: Say, environ: Mapping[str, str] = os.environ) -> None:
    """Build the image from this checkout, and remove those of earlier builds that have no name any more.

    Raises ``DeployError``.
    """
    check_name(image)
    base = base_image(DOCKERFILE.read_text())
    # What another build has just made looks as if it were left over, until it gets its name.
    with Alone("the images", say), explained():
        if image_id(client, base) is None:
            pull(
                client, base, "bring it to this engine (docker load), or give another image that name (docker tag)", say
            )
        say(f"building {image}")
        build_stage(client, STAGE, STAGE_IMAGE, environ)
        build_stage(client, None, image, environ)
        remove_nameless(client)


def build_stage(client: Any, stage: str | None, image: str, environ: Mapping[str, str]) -> None:
    """Build the image of a stage of the Dockerfile, or of the last."""
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
    """Remove images of ours that lost their name to a newer one; what runs in a container stays."""
    # If this fails, the image is built all the same.
    with contextlib.suppress(APIError):
        client.api.prune_images({"dangling": True, "label": [IMAGE_LABEL]})


def follow_build(output: Iterable[Mapping[str, str]]) -> None:
    """Wait until a build is done; raises ``DeployError`` with its last lines."""
    lines: list[str] = []
    for part in output:
        lines += [line for line in part.get("stream", "").splitlines() if line.strip()]
        if "error" in part:
            raise DeployError("\n  ".join([f"the image cannot be built: {brief(part['error'])}", *lines[-KEPT_LINES:]]))
