"""PlanData: the frozen base of a plan's parts, whose every mistake is a PlanError."""

from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import ValidationError

from lmoe_studio.config import Config, explain
from lmoe_studio.errors import PlanError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _ModelMeta
else:
    _ModelMeta = type(Config)


T = TypeVar("T")


class _Refusing(_ModelMeta):
    """Makes an object as pydantic does; values may come in the order of the fields, too."""

    def __call__(cls: type[T], *values: Any, **named: Any) -> T:
        names = list(cls.model_fields)  # pyright: ignore
        if len(values) > len(names):
            raise PlanError(f"{cls.__name__} takes {len(names)} values, got {len(values)}.")
        given = dict(zip(names, values, strict=False))
        if twice := sorted(given.keys() & named.keys()):
            raise PlanError(f"{cls.__name__}: '{twice[0]}' is given twice.")
        try:
            return super().__call__(**given, **named)  # pyright: ignore
        except ValidationError as error:
            raise PlanError(f"{cls.__name__}: {explain(cls, error)}.") from None  # pyright: ignore


class PlanData(Config, metaclass=_Refusing):
    """Plain data whose mistakes are PlanErrors, also where it is made directly."""

    @classmethod
    def parse(cls, values: Any, *, source: str) -> Self:
        """Check plain values. Raises PlanError, one sentence a mistake, naming `source`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise PlanError(f"{source}: {explain(cls, error)}.") from None
