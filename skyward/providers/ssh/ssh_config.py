"""Parse the output of `ssh -G`, and simple configuration files where `ssh` is not installed. Pure: no I/O, no clock.

Settings map a keyword in lower case to its values, each the rest of a line.
"""

import re
from collections.abc import Mapping, Sequence

type Settings = dict[str, list[str]]

REPEATED = frozenset({"identityfile", "certificatefile"})
"""Keywords whose lines add up; for all others, the first line counts."""

READ = REPEATED | {
    *("hostname", "port", "user", "identitiesonly", "identityagent", "proxyjump", "proxycommand", "hostkeyalias"),
    *("userknownhostsfile", "globalknownhostsfile", "connecttimeout", "addressfamily", "bindaddress"),
}
"""Keywords that `read` supports."""

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
"""Keywords that `read` ignores: they change neither the destination nor what is trusted, or Skyward never uses them."""

NUMBERS = frozenset({"port", "connecttimeout"})
LISTS = frozenset({"userknownhostsfile", "globalknownhostsfile"})
OTHER = {"proxyjump": "proxycommand", "proxycommand": "proxyjump"}
"""Keywords that exclude each other: the first one counts."""

_DIRECTIVE = re.compile(r"\s*(?P<keyword>\w+)(?:\s*=\s*|\s+)(?P<value>.*?)\s*")
_PLAIN_WORDS = re.compile(r'(?:"[^"\\]*"|[^\s"\'#\\]+)(?:\s+(?:"[^"\\]*"|[^\s"\'#\\]+))*')
_WORD = re.compile(r'"([^"]*)"|(\S+)')
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def parse(output: str) -> Settings:
    """Parse the output of `ssh -G`."""
    settings: Settings = {}
    for line in output.splitlines():
        keyword, _, value = line.strip().partition(" ")
        settings.setdefault(keyword.lower(), []).append(value)
    return settings


def read(files: Mapping[str, str], host: str) -> Settings:
    """Return the settings for a host from simple configuration files.

    Parameters
    ----------
    files
        The text of each file by its path; earlier files take precedence.
    host
        The host as the user names it.

    Raises
    ------
    ValueError
        A line needs `ssh` itself. The text names file, line and keyword.
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
            words = _words(value) if _PLAIN_WORDS.fullmatch(value) else []
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
    """Split a list of paths; `none` means no path.

    `ssh -G` prints no quotes, so a word that cannot begin a path continues the path before it.
    """
    found: list[str] = []
    for word in value.split(" "):
        if found and found[-1][:1] in "/~%$" and word[:1] not in "/~%$":
            found[-1] += f" {word}"
        else:
            found.append(word)
    return [] if found == ["none"] else found


def expand(text: str, tokens: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Replace tokens such as `%h`, and environment variables such as `${NAME}`.

    Raises
    ------
    ValueError
        A token or variable does not exist.
    """

    def token(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise ValueError(f"the configuration of ssh has {found[0]!r} in {text!r}, which is unknown there")
        return tokens[found[1]]

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise ValueError(f"the configuration of ssh has {found[0]} in {text!r}, but that variable is not set")
        return environment[found[1]]

    return re.sub("%(.?)", token, _VARIABLE.sub(variable, text))


def changed(settings: Settings, usual: Settings, keyword: str) -> Sequence[str] | None:
    """Return the algorithms that the user has chosen, or None if they are the defaults of this `ssh`."""
    if keyword not in settings or settings[keyword] == usual.get(keyword):
        return None
    return settings[keyword][0].split(",")


def _words(value: str) -> list[str]:
    return [found[1] or found[2] for found in _WORD.finditer(value)]


def _matches(patterns: Sequence[str], host: str) -> bool:
    """Return whether a line of `Host` applies: a pattern matches, and no negated pattern does."""
    hits = [pattern for pattern in patterns if _pattern(pattern.removeprefix("!")).fullmatch(host)]
    return bool(hits) and not any(hit.startswith("!") for hit in hits)


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern))
