"""Which models judge from now on, in the place of those that the settings name."""

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.messages.base import EpochMs, Message

ModelName = Annotated[str, Field(min_length=1, max_length=100)]


class ModelsPromoted(Message):
    """The models that the scanners of a consumer group judge with (topic models.promoted; key: the group).

    `models` are names of the registry, in order, and take the place of the setting scanner.models; a tombstone gives
    the choice back to the settings. `replaced` are those that were in force before, whoever had chosen them.
    """

    SCHEMA: ClassVar[str] = "models-promoted"
    group: Annotated[str, Field(min_length=1, max_length=100)]
    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=50)]
    replaced: Annotated[tuple[ModelName, ...], Field(max_length=50)] = ()
    promoted_by: Annotated[str, Field(max_length=100)] = ""
    promoted_at: EpochMs
    note: Annotated[str, Field(max_length=500)] = ""
