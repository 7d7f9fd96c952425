#!/bin/sh
# Used by the image. Assumes: TOLLGATE_HOME and XDG_CACHE_HOME are writable (volumes or tmpfs), the rest is read-only.
# The kernels that the build compiled are copied to where numba may add to them: it compiles anew on another processor.
set -eu
if [ ! -d "$XDG_CACHE_HOME/tollgate" ] && [ -d /opt/tollgate/cache/tollgate ]; then
    mkdir -p "$XDG_CACHE_HOME"
    cp -r --preserve=timestamps /opt/tollgate/cache/tollgate "$XDG_CACHE_HOME/"
fi
exec /opt/tollgate/venv/bin/python -m app "$@"
