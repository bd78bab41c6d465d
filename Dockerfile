# The image of gateway, controller and steps. BASE: any Debian-like image whose python3 is 3.11 or newer and has venv.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/bridge
COPY requirements.lock requirements-web.lock /
# No compiler runs: what has no wheel is an error here, not a surprise later.
RUN /tools/bin/python -m pip --python /opt/bridge/bin/python install --quiet --no-cache-dir --no-compile --no-deps \
      --disable-pip-version-check --only-binary :all: --require-hashes -r /requirements.lock
COPY bridge /bridge
# One file of this package, htmx, and neither its Python nor what that needs (hatch_build.py).
RUN /tools/bin/python -m pip install --quiet --no-cache-dir --no-compile --no-deps --target /web \
      --disable-pip-version-check --only-binary :all: --require-hashes -r /requirements-web.lock \
 && cp /web/django_htmx/static/django_htmx/htmx-2.min.js /bridge/web/static/htmx.min.js
# `brig` is started for every step: it must not load anything but the step, wherever it stands (-P).
RUN cp -r /bridge "$(/opt/bridge/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
 && for program in brig=bridge.step bridgectl=bridge.cli; do \
      printf '#!/bin/sh\nexec /opt/bridge/bin/python -P -m %s "$@"\n' "${program#*=}" > "/opt/bridge/bin/${program%=*}" \
      && chmod 755 "/opt/bridge/bin/${program%=*}" || exit 1; \
    done \
 && chmod -R go=rX /opt/bridge \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/bridge/lib

FROM ${BASE}
# The file system is read-only later, and some bases leave their standard library uncompiled: 0.2 s at each start.
RUN python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))' \
  | xargs python3 -m compileall -q -j 0 -x '/(test|tests|idlelib|lib2to3|site-packages|dist-packages|ensurepip)/'
COPY --from=build /opt/bridge /opt/bridge
COPY LICENSE /opt/bridge/
ENV PATH=/opt/bridge/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="brigade-argo-bridge" org.opencontainers.image.licenses="Apache-2.0"
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /
CMD ["bridgectl", "--help"]
