"""PlanData: the frozen base of a plan's parts, whose every mistake is a PlanError."""

from typing import TYPE_CHECKING, Any, Self, dataclass_transform

from pydantic import Field, ValidationError

from lmoe_studio.config import Config, explain
from lmoe_studio.errors import PlanError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _ModelMeta
else:
    _ModelMeta = type(Config)


@dataclass_transform(kw_only_default=True, field_specifiers=(Field,))
class _Refusing(_ModelMeta):
    """Makes an object as pydantic does; values may come in the order of the fields, too."""

    if not TYPE_CHECKING:  # checkers know the fields from pydantic

        def __call__(cls, *values: Any, **named: Any) -> Any:
            names = list(cls.model_fields)
            if len(values) > len(names):
                raise PlanError(f"{cls.__name__} takes {len(names)} values, got {len(values)}.")
            given = dict(zip(names, values, strict=False))
            if twice := sorted(given.keys() & named.keys()):
                raise PlanError(f"{cls.__name__}: '{twice[0]}' is given twice.")
            try:
                return super().__call__(**given, **named)
            except ValidationError as error:
                raise PlanError(f"{cls.__name__}: {explain(cls, error)}.") from None


class PlanData(Config, metaclass=_Refusing):
    """Plain data whose mistakes are PlanErrors, also where it is made directly."""

    @classmethod
    def parse(cls, values: Any, *, source: str) -> Self:
        """Check plain values. Raises PlanError, one sentence a mistake, naming `source`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise PlanError(f"{source}: {explain(cls, error)}.") from None
