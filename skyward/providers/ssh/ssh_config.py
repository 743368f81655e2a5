"""The settings that `ssh` uses for a host. Pure: no I/O, no clock; `login` runs `ssh -G` and reads the files.

Settings map a keyword in lower case to its values, each the rest of a line, as `ssh -G` prints them.
"""

import re
from collections.abc import Mapping, Sequence

type Settings = dict[str, list[str]]

REPEATED = frozenset({"identityfile", "certificatefile"})
"""Keywords of which every line counts; of all others the first one does."""

READ = REPEATED | {
    *("hostname", "port", "user", "identitiesonly", "identityagent", "proxyjump", "proxycommand", "hostkeyalias"),
    *("userknownhostsfile", "globalknownhostsfile", "connecttimeout", "addressfamily", "bindaddress"),
}
"""Keywords that are read from a file where there is no `ssh` to ask."""

UNUSED = frozenset(
    {
        *("addkeystoagent", "batchmode", "checkhostip", "compression", "connectionattempts", "controlmaster"),
        *("controlpath", "controlpersist", "escapechar", "fingerprinthash", "forwardagent", "forwardx11"),
        *("forwardx11timeout", "forwardx11trusted", "gssapiauthentication", "gssapidelegatecredentials"),
        *("hashknownhosts", "ipqos", "kbdinteractiveauthentication", "loglevel", "numberofpasswordprompts"),
        *("passwordauthentication", "permitlocalcommand", "rekeylimit", "requesttty", "sendenv", "serveralivecountmax"),
        *("serveraliveinterval", "setenv", "stricthostkeychecking", "tcpkeepalive", "updatehostkeys", "visualhostkey"),
        *("xauthlocation",),
    }
)
"""Keywords that change neither where a connection goes nor whom it trusts, or that Skyward never follows."""

NUMBERS = frozenset({"port", "connecttimeout"})
LISTS = frozenset({"userknownhostsfile", "globalknownhostsfile"})
OTHER = {"proxyjump": "proxycommand", "proxycommand": "proxyjump"}
"""Of these two the one that comes first counts."""

_DIRECTIVE = re.compile(r"\s*(?P<keyword>\w+)(?:\s*=\s*|\s+)(?P<value>.*?)\s*")
_PLAIN = re.compile(r'(?:"[^"\\]*"|[^\s"\'#\\]+)(?:\s+(?:"[^"\\]*"|[^\s"\'#\\]+))*')
_WORD = re.compile(r'"([^"]*)"|(\S+)')
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def parse(output: str) -> Settings:
    """Return the settings that `ssh -G` has printed."""
    settings: Settings = {}
    for line in output.splitlines():
        keyword, _, value = line.strip().partition(" ")
        settings.setdefault(keyword.lower(), []).append(value)
    return settings


def read(files: Mapping[str, str], host: str) -> Settings:
    """Return what simple configuration files say of a host, where there is no `ssh` to ask.

    Parameters
    ----------
    files
        The text of each file by its path; the first ones win.
    host
        The host as the user names it.

    Raises
    ------
    ValueError
        A line is not simple; the text names file, line and keyword.
    """
    settings: Settings = {}
    for file, text in files.items():
        applies = True
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            found = _DIRECTIVE.fullmatch(line)
            keyword = found["keyword"].lower() if found else line.split()[0]
            value = found["value"] if found else ""
            words = _words(value) if _PLAIN.fullmatch(value) else []
            if keyword == "host" and words:
                applies = _matches(words, host)
                continue
            if keyword not in ("host", "match", "include") and (not applies or keyword in UNUSED):
                continue
            simple = len(words) == 1 or (words and keyword in LISTS) or (value and keyword == "proxycommand")
            if keyword not in READ or not simple or (keyword in NUMBERS and not value.isdecimal()):
                raise ValueError(
                    f"{file}, line {number}: {keyword!r} as it is written there needs the program `ssh`, which is not"
                    " installed here; install OpenSSH's client, or remove the line"
                )
            if keyword in REPEATED:
                settings.setdefault(keyword, []).extend(words)
            elif OTHER.get(keyword) not in settings:
                settings.setdefault(keyword, [value if keyword == "proxycommand" else " ".join(words)])
    if "hostname" in settings:
        settings["hostname"] = [expand(settings["hostname"][0], {"h": host, "%": "%"}, {})]
    return settings


def paths(value: str) -> list[str]:
    """Return the paths of a line that lists several; `none` is no path.

    `ssh -G` prints no quotes: a word that cannot begin a path belongs to the path before it.
    """
    found: list[str] = []
    for word in value.split(" "):
        if found and found[-1][:1] in "/~%$" and word[:1] not in "/~%$":
            found[-1] += f" {word}"
        else:
            found.append(word)
    return [] if found == ["none"] else found


def expand(text: str, tokens: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Replace `%h` and the like by `tokens`, and `${NAME}` by the environment's variable.

    Raises
    ------
    ValueError
        There is no such token or variable.
    """

    def token(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise ValueError(f"the configuration of ssh has {found[0]!r} in {text!r}, which is not known there")
        return tokens[found[1]]

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise ValueError(f"the configuration of ssh has {found[0]} in {text!r}, and there is no such variable")
        return environment[found[1]]

    return re.sub("%(.?)", token, _VARIABLE.sub(variable, text))


def changed(settings: Settings, usual: Settings, keyword: str) -> Sequence[str] | None:
    """Return the algorithms that the user has chosen; None if they are those that this `ssh` has anyway."""
    if keyword not in settings or settings[keyword] == usual.get(keyword):
        return None
    return settings[keyword][0].split(",")


def _words(value: str) -> list[str]:
    return [found[1] or found[2] for found in _WORD.finditer(value)]


def _matches(patterns: Sequence[str], host: str) -> bool:
    """Return whether a line of `Host` is for this host: one pattern matches, and none with `!` before it."""
    hits = [pattern for pattern in patterns if _pattern(pattern.removeprefix("!")).fullmatch(host)]
    return bool(hits) and not any(hit.startswith("!") for hit in hits)


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern))
