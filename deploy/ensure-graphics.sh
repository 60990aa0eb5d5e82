#!/bin/sh
# Off-screen rendering needs EGL or OSMesa. Installs Debian's packages where that is allowed, else
# says which line to type. Argument: the venv's python.
set -u
has_library() {
    "$1" - <<'PY'
import ctypes.util
import sys
sys.exit(0 if ctypes.util.find_library("EGL") or ctypes.util.find_library("OSMesa") else 1)
PY
}
has_library "$1" && exit 0
packages="libegl1 libgl1 libosmesa6"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing $packages (off-screen rendering)"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null
    has_library "$1" && exit 0
fi
echo "off-screen rendering needs EGL or OSMesa; install them, then run make again:" >&2
echo "    sudo apt-get install -y $packages" >&2
exit 1
