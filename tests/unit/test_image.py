"""What a node needs, as the user writes it: what no machine could do is refused when it is written."""

import sys
from typing import Any

import pytest

from skyward.config.image import Image
from skyward.errors import InvalidArgument

OURS = "{}.{}".format(*sys.version_info)
PACKAGES = "give packages as pip writes them, for example packages=['numpy>=2']"
APT = "give names of Debian packages, for example apt=['libgomp1']"
INDEX = "give the address of a package index, for example index='https://packages.example.org/simple'"
SENT = "install it here and give its name: nodes get the packages that are installed here"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"packages": ["numpy pandas"]},
            f"packages=['numpy pandas']: 'numpy pandas' is not the name of a package; {PACKAGES}",
        ),
        ({"packages": ["numpy=2"]}, f"packages=['numpy=2']: 'numpy=2' is not the name of a package; {PACKAGES}"),
        ({"packages": ["./x.whl"]}, f"packages=['./x.whl']: './x.whl' is a path that machines do not have; {SENT}"),
        ({"apt": ["libgomp1 git"]}, f"apt=['libgomp1 git']: 'libgomp1 git' is not the name of a Debian package; {APT}"),
        (
            {"shell": ["true", " \n"]},
            "shell=['true', ' \\n']: ' \\n' is not a command; give lines of shell, for example",
        ),
        ({"shell": ["a\0b"]}, "shell=['a\\x00b']: 'a\\x00b' is not a command"),
        ({"preload": ("numpy", "a-b")}, "preload=('numpy', 'a-b'): 'a-b' is not the name of a module; write it as in"),
        ({"apt": ["-y"]}, f"apt=['-y']: '-y' is not the name of a Debian package; {APT}"),
        ({"index": "pypi.example"}, f"index='pypi.example': is not the address of a package index; {INDEX}"),
        (
            {"python": "python2"},
            f"python='python2': is not the version that your program runs on, {OURS}; use python{OURS}",
        ),
        ({"python": "3"}, "python='3': is a version, not a command"),
        (
            {"python": "3.12"},
            f"python='3.12': is a version, not a command; write python='python{OURS}', or leave it out",
        ),
        (
            {"python": "/usr/bin/python3.2"},
            f"python='/usr/bin/python3.2': is not the version that your program runs on, {OURS}; use python{OURS}, or",
        ),
        (
            {"files": {"a": "x", "a/b": "y"}},
            "files={'a': 'x', 'a/b': 'y'}: 'a' is a file and a folder; give it another name",
        ),
        ({"files": {"../a": "x"}}, "files={'../a': 'x'}: '../a' is not inside the working folder of a task"),
    ],
)
def test_what_no_machine_could_do_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Image(**given)
    assert str(raised.value).startswith(text)


def test_what_machines_can_do_is_accepted() -> None:
    image = Image(
        packages=["numpy>=2,<3", "scipy[dev]~=1.0; python_version > '3'", "git+https://host/x.git", "/wheels/x.whl"],
        index="http://127.0.0.1:8080/simple",
        python=f"/opt/{OURS}/bin/python{OURS}",
        apt=["libstdc++6", "git:arm64", "curl=7.88.1-10"],
    )

    assert image.with_packages("x").python == image.python
    for python in ("/opt/3.2", "python3", f"python{OURS}.99", "pypy"):
        assert Image(python=python).python == python


def test_names_of_files_are_plain() -> None:
    assert Image(files={"./a//b/": "x", "c": "y"}).files == {"a/b": "x", "c": "y"}
