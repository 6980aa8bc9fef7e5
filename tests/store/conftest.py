"""The plain cohort."""

from tests.plain_cohort import plain, transforms  # noqa: F401
