"""`losses`, `schedules` and `balance`: maps from a loss's name to settings.

The names and settings come from `losses.registry`.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import (
    SerializerFunctionWrapHandler,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from keras_distil.config.schedules import Schedule, schedule_of
from keras_distil.losses import registry
from keras_distil.losses.settings import LossSettings
from keras_distil.utils.section import Count, Positive, Section


class NamedSettings(Section):
    """A map with a fixed set of names; those it does not contain are None."""

    @model_serializer(mode="wrap")
    def _named(self, serialize: SerializerFunctionWrapHandler) -> Any:
        return {k: v for k, v in serialize(self).items() if v is not None}

    @property
    def by_name(self) -> dict[str, Any]:
        """The entries of the map, in the order of the registry."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {k: v for k, v in found.items() if v is not None}


class AnyLossMap(NamedSettings):
    """Losses by name, of which none need be on the outputs."""

    @property
    def by_name(self) -> dict[str, LossSettings]:
        """Settings of the losses, in the order of the registry."""
        return super().by_name

    @property
    def read_outputs(self) -> bool:
        """Whether any of the losses is on the outputs."""
        return not all(
            each.is_on_states or each.is_on_attention
            for each in self.by_name.values()
        )

    @field_validator("*", mode="before")
    @classmethod
    def _named_with_settings(cls, settings: Any) -> Any:
        if settings is None:
            raise ValueError(
                "must be a mapping of settings: `{}` for the defaults. Leave "
                "the loss out to turn it off. Received: None."
            )
        return settings

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        shown = ", ".join(self.by_name) or "no loss"
        if not any(each.weight > 0 for each in self.by_name.values()):
            raise ValueError(
                "at least one loss needs a weight above 0. "
                f"Received: {shown}{' with weight 0' if self.by_name else ''}."
            )
        return self


class LossMap(AnyLossMap):
    """The losses by name; a loss that is not named is off."""

    @model_validator(mode="after")
    def _outputs_are_learned(self) -> Self:
        check_outputs(self)
        return self


def check_outputs(losses: AnyLossMap) -> None:
    """Raises ValueError unless a loss is on the outputs."""
    if not losses.read_outputs:
        raise ValueError(
            "needs a loss on the outputs, such as soft_target, or the output "
            "layer would not be trained. Received: "
            f"{', '.join(losses.by_name)}."
        )


class LossSchedules(NamedSettings):
    """The schedules of each loss, by setting."""

    @property
    def by_name(self) -> dict[str, dict[str, Schedule]]:
        """Schedules by loss and setting."""
        found = {name: x.by_name for name, x in super().by_name.items()}
        return {
            name: schedules for name, schedules in found.items() if schedules
        }


def _map_of(
    name: str, base: type[NamedSettings], sections: Mapping[str, Any]
) -> Any:
    """Makes a map in which each name is optional."""
    fields: dict[str, Any] = {
        key: (annotation | None, None) for key, annotation in sections.items()
    }
    return create_model(
        name, __base__=base, __module__=__name__, __doc__=base.__doc__, **fields
    )


def _loss_map(
    name: str, kinds: Collection[str], base: type[AnyLossMap] = LossMap
) -> Any:
    rows = registry.rows_for(kinds)
    return _map_of(name, base, {x: rows[x].settings for x in rows})


def _schedules_of(name: str, settings: type[LossSettings]) -> Any:
    title = "".join(part.title() for part in name.split("_"))
    return _map_of(
        f"{title}Schedules",
        NamedSettings,
        {x: schedule_of(settings, x) for x in settings.scheduled},
    )


# Of `distill`, whose task decides which of them it may name.
_TEXT_KINDS = (registry.MASKED_LM, registry.EMBEDDING)
_TEXT_ROWS = registry.rows_for(_TEXT_KINDS)

if TYPE_CHECKING:
    TextLosses = LossMap
    TaskLosses = LossMap
    StageLosses = AnyLossMap
    TextSchedules = LossSchedules
    _Shares = NamedSettings
else:
    TextLosses = _loss_map("TextLosses", _TEXT_KINDS, AnyLossMap)
    TaskLosses = _loss_map("TaskLosses", registry.TASK_KINDS)
    StageLosses = _loss_map("StageLosses", registry.TASK_KINDS, AnyLossMap)
    TextSchedules = _map_of(
        "TextSchedules",
        LossSchedules,
        {x: _schedules_of(x, row.settings) for x, row in _TEXT_ROWS.items()},
    )
    _Shares = _map_of(
        "Shares", NamedSettings, dict.fromkeys(_TEXT_ROWS, Positive)
    )


class BalanceSettings(_Shares):
    """`distill.balance`: weights that keep gradients in chosen ratios.

    Each loss has a relative share of the update: 1 if not given. Every
    `every_steps` updates, the weights of `losses` move halfway to the values
    that produce these shares.
    """

    every_steps: Count = 50

    def ratios(self, losses: LossMap) -> dict[str, float]:
        """The shares of the losses whose weight is above 0."""
        return {
            name: 1.0 if getattr(self, name) is None else getattr(self, name)
            for name, each in losses.by_name.items()
            if each.weight > 0
        }


def default_losses(losses: Any, names: Collection[str]) -> Any:
    """A map of losses with all their defaults.

    Args:
        losses: `TextLosses` or `TaskLosses`.
        names: names of the losses.
    """
    return losses.model_validate({name: {} for name in names})
