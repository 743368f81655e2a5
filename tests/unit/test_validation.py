from pathlib import Path

import pytest
from pydantic import Field

from skyward.config.validation import StrictModel
from skyward.errors import InvalidArgument, listed


class Disk(StrictModel):
    folder: Path | None = Field(default=None, description="give a folder", examples=["'data'"])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"folder": 3}, "folder=3: must be an instance of Path; give a folder, for example folder='data'"),
        ({"foldr": 3}, "Disk has no argument 'foldr'; did you mean 'folder'?"),
    ],
)
def test_a_record_of_anybody_explains_a_wrong_argument_in_one_line(given: dict[str, int], text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Disk(**given)  # type: ignore[arg-type]
    assert str(refused.value) == text


def test_names_are_listed_as_in_a_sentence() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
