"""The base of every payload, and the chat message that several of them carry."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=200_000)]
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Closed(BaseModel):
    """A frozen model that refuses fields it doesn't know (readers pass `extra="ignore"`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Payload(Closed):
    """The data of one kind of event. `partition_key` decides its partition, and so its order."""

    schema_name: ClassVar[str]

    @property
    def partition_key(self) -> str:
        """The Kafka key, as text."""
        raise NotImplementedError


class ChatMessage(Closed):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


Prompt = Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=200)]
