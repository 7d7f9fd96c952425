#!/bin/sh
# Used by the Dockerfile, in the stage that is thrown away. Compiles the kernels, then takes out of /opt/tollgate what a
# server never opens: headers and test suites of libraries, and pip itself.
set -eu
site="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
# numba's cache remembers its sources' times, and an image's layers keep whole seconds only.
find /opt/tollgate/app -exec touch -d '@0' {} +
XDG_CACHE_HOME=/opt/tollgate/cache python -m app.engine.compute.precompile
rm -rf "$site"/torch/include "$site"/torch/share "$site"/torch/test "$site"/pip "$site"/pip-*.dist-info
find "$site" -type d -name tests \( -path '*/numpy/*' -o -path '*/numba/*' -o -path '*/sympy/*' -o -path '*/networkx/*' \) \
    -prune -exec rm -rf {} +
find /opt/tollgate -name '*.a' -delete
# Compiled Python that goes by content, not by time, since a read-only file system can be written no other. Libraries
# ship templates that are no Python; they fail to compile, and that is no fault.
find /opt/tollgate -name __pycache__ -type d -prune -exec rm -rf {} +
python -m compileall -q --invalidation-mode unchecked-hash /opt/tollgate/app
python -m compileall -q --invalidation-mode unchecked-hash "$site" > /dev/null || true
