"""Whether another theme is to be used than the one that is: its file was saved, or the settings name another one."""

from __future__ import annotations

from engine.folders import settings_path
from noodle_tui.config import SETTINGS_FILE, load_config
from noodle_tui.themes import DEFAULT_THEME, changed_s, theme_file


class ThemeWatch:
    """`named` is the theme of the settings, which the command line may have overruled."""

    def __init__(self, used: str, named: str | None) -> None:
        self._named = named
        self._settings_s = changed_s(settings_path(SETTINGS_FILE))
        self.use(used)

    def use(self, name: str) -> None:
        """That theme is used from now on."""
        self._used, self._file_s = name, changed_s(theme_file(name))

    def news(self) -> str:
        """The theme to load now; empty while nothing was saved. Raises InvalidInput for settings that are none, once."""
        file_s, settings_s = changed_s(theme_file(self._used)), changed_s(settings_path(SETTINGS_FILE))
        is_saved, self._file_s = file_s not in (0.0, self._file_s), file_s
        if settings_s != self._settings_s:
            self._settings_s, before = settings_s, self._named
            self._named = load_config(settings_path(SETTINGS_FILE)).theme
            if self._named != before:
                return self._named or DEFAULT_THEME
        return self._used if is_saved else ""
