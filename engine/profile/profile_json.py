"""A profile as JSON and back; a damaged or foreign file is refused by name.

The document has the fields of `Profile`; `overhead`, `coverage` and the reference point of every phase stand on top, where
scripts and the console look for them.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.data.typed_json import decode, read_object
from engine.profile.profile import SCHEMA_VERSION, Profile

_REMEDY = "take the profile again"


def profile_to_json(profile: Profile) -> str:
    """The document as ASCII text. Raises InvalidInput if a figure is not finite, for such a figure is no measurement."""
    references = [asdict(profile.reference_point(phase)) for phase in profile.phases]
    honesty = {"overhead": profile.honesty.overhead, "coverage": profile.honesty.coverage}
    document = {**asdict(profile), **honesty, "reference_points": references}
    try:
        return json.dumps(document, ensure_ascii=True, allow_nan=False)
    except ValueError as error:
        raise InvalidInput(f"the profile of {profile.model!r} holds a figure that is not finite: take it again") from error


def profile_from_json(text: str) -> Profile:
    """Raises Corrupt naming the field that is missing or wrong, NotSupported for a schema of a later version."""
    raw = read_object(text, "a profile", "take it again")
    version = raw.get("schema_version")
    if type(version) is not int:
        raise Corrupt("this is not a profile (it has no schema_version): take it again")
    if version != SCHEMA_VERSION:
        raise NotSupported(f"the profile has schema version {version}, this program reads {SCHEMA_VERSION}: take it again")
    profile = decode(Profile, raw, "profile", _REMEDY)
    if not isinstance(profile, Profile):
        raise Corrupt("this is not a profile: take it again")
    return profile
