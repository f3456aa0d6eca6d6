"""StopStrings: hands text on as it comes, up to a stop string, never showing part of one."""

from collections.abc import Sequence


class StopStrings:
    """Holds back what may turn out to be the beginning of a stop string."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.text = ""
        """What has been handed on."""
        self.found = False
        self._strings = [one for one in strings if one]
        self._held = ""

    def add(self, new: str) -> str:
        """The text that may be shown now."""
        if self.found:
            return ""
        text = self._held + new
        places = [place for one in self._strings if (place := text.find(one)) >= 0]
        if places:
            self.found, shown = True, text[: min(places)]
            self._held = text[len(shown) :]
        else:
            keep = max((_overlap(text, one) for one in self._strings), default=0)
            shown = text[: len(text) - keep]
            self._held = text[len(shown) :]
        self.text += shown
        return shown

    def add_unseen(self, mark: str) -> str:
        """A special token, which is not shown; the text that may be shown now.

        It stops the text where a stop string ends with it, or lies within it.
        """
        if self.found:
            return ""
        text = self._held + mark
        places = [place for one in self._strings if (place := text.find(one)) >= 0]
        if not places:
            return ""
        self.found, shown = True, self._held[: min(places)]
        self._held = self._held[len(shown) :]
        self.text += shown
        return shown

    def passed(self) -> "StopStrings":
        """One that looks for the next stop string; that which was found is text now."""
        after = StopStrings(self._strings)
        after.text = self.text + self._held
        return after

    def rest(self) -> str:
        """The text is over: what was held back is shown after all."""
        shown, self._held = self._held, ""
        self.text += shown
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
