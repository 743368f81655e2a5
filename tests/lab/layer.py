"""This Python as a host's own: a layer below its file system, without pip, ensurepip and what is installed here."""

import shutil
import sys
import sysconfig
from pathlib import Path


def python(folder: Path) -> Path:
    """Make the layer in `folder`, if it is not there: `/usr/bin/python3.12`, say, and its library."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if folder.exists():
        return folder
    part, library = folder.with_suffix(".part"), Path(sysconfig.get_path("stdlib"))
    shutil.rmtree(part, ignore_errors=True)
    skip = shutil.ignore_patterns("test", "ensurepip", "site-packages", "idlelib", "tkinter", "turtledemo", "config-*")
    shutil.copytree(library, part / "usr/lib" / name, ignore=skip, symlinks=True)
    (part / "usr/bin").mkdir()
    shutil.copy2(Path(sys.base_prefix, "bin", name), part / "usr/bin" / name)
    shared = str(sysconfig.get_config_var("INSTSONAME") or "")
    if ".so" in shared:
        target = part / "usr/lib" / str(sysconfig.get_config_var("MULTIARCH"))
        target.mkdir(parents=True)
        shutil.copy2(Path(str(sysconfig.get_config_var("LIBDIR")), shared), target / shared)
    part.rename(folder)
    return folder
