"""Which names can be regions of Amazon, and which region was meant by a name."""

import pytest
from botocore.session import Session

from skyward.providers.aws import region_names

KNOWN = ("eu-central-1", "eu-west-1", "us-east-1", "us-west-1", "us-west-2")


def test_every_region_that_the_sdk_knows_has_the_form() -> None:
    session = Session()
    partitions = session.get_available_partitions()
    found = [
        each for kind in partitions for each in session.get_available_regions("sts", kind, allow_non_regional=True)
    ]
    regions = [each for each in found if not each.endswith(("-global", "-fips")) and not each.startswith("sts-")]

    assert len(regions) > 30
    assert [each for each in regions if not region_names.has_form(each)] == []


@pytest.mark.parametrize("name", ["eu-south-9", "nz-north-1", "us-gov-east-1", "eusc-de-east-1", "cn-northwest-1"])
def test_a_region_may_be_newer_than_the_sdk(name: str) -> None:
    assert region_names.has_form(name)


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("us-esat-1", "did you mean 'us-east-1' or 'us-west-1'?"),
        ("eu-cental-1", "did you mean 'eu-central-1'?"),
        ("us_east_1", "did you mean 'us-east-1' or 'us-west-1'?"),
        ("US-WEST-2 ", "did you mean 'us-west-2' or 'us-west-1'?"),
        ("us-east-1a", "did you mean 'us-east-1' or 'us-west-1'?"),
        ("useast1", "did you mean 'us-east-1' or 'us-west-1'?"),
        ("eu-west", "did you mean 'eu-west-1' or 'us-west-2'?"),
        ("frankfurt", ""),
        ("", ""),
    ],
)
def test_which_region_was_meant_is_asked(name: str, question: str) -> None:
    assert not region_names.has_form(name)
    assert region_names.meant(name, KNOWN) == question


def test_where_no_region_is_set_all_places_for_it_are_named() -> None:
    text = region_names.none_set("")
    assert text.startswith("region=None: no region is set; pass region='eu-central-1', ")
    assert [name in text for name in ("AWS_DEFAULT_REGION", "AWS_REGION is not read", "~/.aws/config")] == [True] * 3
    text = region_names.none_set("eu-west-1")
    assert "as AWS_REGION=eu-west-1 is not read; pass region='eu-west-1', set the variable AWS_DEFAULT_REGION" in text
