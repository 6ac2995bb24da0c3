"""How many examples the tests of properties try."""

from hypothesis import settings


def at_most(examples: int) -> int:
    """That many in the profile `thorough`, and a part of them in the fast one."""
    profile = settings.get_profile(settings.get_current_profile_name())
    return max(1, examples * profile.max_examples // 100)
