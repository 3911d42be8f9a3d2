"""What every section of the configuration is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Keys that are known, values that do not change; what is wrong is told without the value."""

    # Without hide_input a ValidationError would print header values.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
