"""Make the ZIP of the QGIS plugin that QGIS installs (Plugins > Install from ZIP): python qgis/make_zip.py [OUT]."""

from __future__ import annotations

import re
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PLUGIN = Path(__file__).with_name("geopsp_processing")
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The same files give the same ZIP."""


def main(out: Path) -> None:
    """Write the plugin and the licence to a ZIP whose only folder is the plugin's."""
    ours, theirs = version_of_plugin(), version_of_geopsp()
    if ours != theirs:
        sys.exit(f"{PLUGIN / 'metadata.txt'} has version {ours}, but geopsp has {theirs}. Set it to {theirs}.")
    files = {f"{PLUGIN.name}/{path.name}": path for path in sorted(PLUGIN.iterdir()) if path.is_file()}
    files[f"{PLUGIN.name}/LICENSE"] = REPOSITORY / "LICENSE"
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    print(f"Wrote {out}: version {ours}, {len(files)} files")


def version_of_plugin() -> str:
    """Return the version in metadata.txt."""
    metadata = ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


def version_of_geopsp() -> str:
    """Return the version of the package, without importing it."""
    text = (REPOSITORY / "geopsp" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "dist" / "geopsp_processing.zip")
